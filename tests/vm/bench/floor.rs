//! What a hook costs at least: a program that does nothing, on one hook at a time.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

const SCRIPT: &str = concat!(include_str!("../calls.py"), include_str!("floor.py"));

/// Holds the empty program; without it the hooks are as they were.
#[derive(Debug)]
pub struct Floor {
    holder: Child,
    answers: BufReader<ChildStdout>,
}

impl Floor {
    pub fn start() -> Result<Self> {
        let mut command = Command::new("python3");
        command.args(["-I", "-S", "-c", SCRIPT]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().context("cannot start python3")?;
        let answers = BufReader::new(holder.stdout.take().context("no output")?);
        Ok(Self { holder, answers })
    }

    /// Puts the program on this hook and takes it off the one before.
    pub fn put_on(&mut self, hook: &str) -> Result<()> {
        let input = self.holder.stdin.as_mut().context("no input")?;
        writeln!(input, "{hook}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(answer == "ok\n", "an empty program cannot be put on {hook}");
        Ok(())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
