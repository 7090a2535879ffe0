//! Files, programs and open files that are there before the agent: once it runs, nobody could
//! make them.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::guest::{self, Background, OTHER, OTHER_SERIAL, USB, USB_SERIAL};

/// What no program may give back.
pub const SECRET: &str = "TOP-SECRET-最高機密";
/// What may be read.
pub const PLAIN: &str = "nothing special";
/// A pipe on which the older programs wait.
const GO: [&str; 2] = ["/run/sekimori-older-program", "/run/sekimori-older-writer"];

/// Programs that are older than the agent. Each waits for one line on its pipe.
#[derive(Debug)]
pub struct Older {
    /// A shell that then opens `/srv/watched/older.txt`.
    pub program: Background,
    /// Has `late.bin` on the stick open for write, and then writes 5,000 bytes to it.
    pub writer: Background,
}

impl Older {
    /// Lets the shell go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn wake_program(&mut self) -> Result<i32> {
        std::fs::write(GO[0], "go\n")?;
        self.program.wait()
    }

    /// Lets the writer go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn wake_writer(&mut self) -> Result<i32> {
        std::fs::write(GO[1], "go\n")?;
        self.writer.wait()
    }
}

/// Makes everything.
///
/// # Errors
/// When something cannot be made.
pub fn prepare() -> Result<Older> {
    secrets()?;
    other_files()?;
    programs()?;
    guest::mount(USB_SERIAL, USB)?;
    guest::mount(OTHER_SERIAL, OTHER)?;
    guest::write(format!("{OTHER}/there.txt"), PLAIN)?;
    guest::write(format!("{OTHER}/there-too.txt"), PLAIN)?;
    std::fs::create_dir_all(format!("{OTHER}/directory"))?;
    older()
}

fn secrets() -> Result<()> {
    let names = [
        "plan.txt",
        "linked.txt",
        "linked-too.txt",
        "move.txt",
        "inside.txt",
        "directory/inner.txt",
    ];
    for name in names {
        guest::write(format!("/srv/secret/{name}"), SECRET)?;
    }
    // One for each way to another name: what was opened once is known, and these must not be.
    for name in super::places::NEVER_OPENED {
        guest::write(format!("/srv/secret/{name}"), SECRET)?;
    }
    guest::write("/srv/secret-parent-free/x.txt", PLAIN)?;
    guest::write("/home/tanaka/機密/計画書.txt", SECRET)?;
    std::fs::create_dir_all("/srv/outside")?;
    symlink("/srv/secret/plan.txt", "/srv/outside/symlink.txt")?;
    std::fs::hard_link("/srv/secret/linked.txt", "/srv/outside/hardlink.txt")?;
    std::fs::hard_link("/srv/secret/linked-too.txt", "/srv/outside/hardlink-too.txt")?;
    let deep = format!("/srv/secret/{}", "d/".repeat(60));
    guest::write(format!("{deep}deep.txt"), SECRET)?;
    let deep = format!("/srv/outside/{}", "d/".repeat(60));
    guest::write(format!("{deep}deep.txt"), SECRET)
}

fn other_files() -> Result<()> {
    for place in ["watched", "alerting", "observed", "personal"] {
        guest::write(format!("/srv/{place}/a.txt"), PLAIN)?;
    }
    guest::write("/srv/watched/older.txt", PLAIN)?;
    guest::write("/srv/watched/closed/x.txt", PLAIN)?;
    std::fs::set_permissions("/srv/watched/closed", std::fs::Permissions::from_mode(0o700))?;
    Ok(())
}

fn programs() -> Result<()> {
    let copies = [
        ("/bin/true", "/opt/forbidden/tool"),
        ("/bin/true", "/opt/noticed/tool"),
        ("/bin/cat", "/opt/backup/cat"),
        ("/usr/bin/curl", "/opt/talkers/curl"),
    ];
    for (from, to) in copies {
        if let Some(parent) = Path::new(to).parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(from, to).with_context(|| format!("cannot copy {from} to {to}"))?;
    }
    let scripts = [
        ("/opt/forbidden/script.sh", "#!/bin/sh\necho ran\n"),
        ("/srv/outside/asks-for-forbidden.sh", "#!/opt/forbidden/tool\n"),
    ];
    for (path, text) in scripts {
        guest::write(path, text)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn older() -> Result<Older> {
    for pipe in GO {
        let _ = std::fs::remove_file(pipe);
        crate::check::ok(&guest::run("mkfifo", &[pipe])?)?;
    }
    let mut shell = Command::new("bash");
    let script = "read -r line <\"$1\"; read -r line </srv/watched/older.txt; exit 0";
    shell.args(["-c", script, "older program", GO[0], "引数 二", ""]);
    let mut python = Command::new("python3");
    python.args(["-I", "-S", "-c", WRITER, &format!("{USB}/late.bin"), GO[1]]);
    let program = Background::start(shell, Path::new("/run/sekimori-older-program.log"))?;
    let writer = Background::start(python, Path::new("/run/sekimori-older-writer.log"))?;
    let open = format!("{USB}/late.bin");
    guest::until("the older writer has its file open", crate::limits::PROGRAM_TIMEOUT, || {
        Ok(Path::new(&open).exists())
    })?;
    Ok(Older { program, writer })
}

const WRITER: &str = r#"
import sys
file = open(sys.argv[1], "wb", buffering=0)
open(sys.argv[2]).readline()
file.write(b"x" * 5000)
file.close()
"#;
