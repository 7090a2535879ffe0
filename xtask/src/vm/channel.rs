//! What comes out of a guest: the command's output, and what it asks of the host.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Result, bail};

use super::image::{Stick, serial_number};
use super::qmp::Qmp;

/// How many lines of a prefixed output are kept for the caller.
const LINES_KEPT_MAX: usize = 20_000;

/// Lines that a command wrote, for the caller; there may be fewer when it wrote very many.
pub type Lines = Arc<Mutex<Vec<String>>>;

/// How a command's output is shown.
#[derive(Debug, Clone)]
pub enum Show {
    /// Byte for byte, stdout to stdout and stderr to stderr.
    AsIs,
    /// Line by line on stdout, each after this text; the lines are kept as well.
    Prefixed(String, Lines),
    /// Not at all; the lines are kept.
    Kept(Lines),
}

impl Show {
    /// How many lines were kept up to now; none where they are not.
    #[must_use]
    pub fn lines(&self) -> usize {
        match self {
            Self::AsIs => 0,
            Self::Prefixed(_, lines) | Self::Kept(lines) => {
                lines.lock().map_or(0, |lines| lines.len())
            }
        }
    }
}

/// Copies a stream to where it is shown, until it ends.
pub fn copy_output(stream: UnixStream, show: Show, is_error: bool) -> JoinHandle<()> {
    std::thread::spawn(move || match show {
        // When our own output is closed there is nobody left to tell.
        Show::AsIs => drop(copy_bytes(stream, is_error)),
        Show::Prefixed(prefix, lines) => copy_lines(stream, Some(&prefix), &lines),
        Show::Kept(lines) => copy_lines(stream, None, &lines),
    })
}

fn copy_bytes(mut stream: UnixStream, is_error: bool) -> std::io::Result<()> {
    let mut buffer = [0_u8; 8192];
    loop {
        let length = stream.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        if is_error {
            std::io::stderr().write_all(bytes)?;
        } else {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()?;
        }
    }
}

fn copy_lines(stream: UnixStream, prefix: Option<&str>, lines: &Lines) {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        if let Some(prefix) = prefix {
            println!("{prefix}{line}");
        }
        if let Ok(mut kept) = lines.lock()
            && kept.len() < LINES_KEPT_MAX
        {
            kept.push(line);
        }
        bytes.clear();
    }
}

/// Answers the guest until it is gone. `booted` is told when the guest is ready for its command.
pub fn serve(control: UnixStream, qmp: UnixStream, images: PathBuf, booted: Sender<()>) {
    std::thread::spawn(move || {
        let Ok(mut qmp) = Qmp::open(qmp) else { return };
        let Ok(mut answers) = control.try_clone() else {
            return;
        };
        for line in BufReader::new(control).lines().map_while(Result::ok) {
            let answer = match answer(&line, &mut qmp, &images, &booted) {
                Ok(()) => "ok".to_owned(),
                Err(error) => format!("error {error:#}").replace('\n', " "),
            };
            if writeln!(answers, "{answer}").is_err() {
                return;
            }
        }
    });
}

fn answer(line: &str, qmp: &mut Qmp, images: &Path, booted: &Sender<()>) -> Result<()> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words.as_slice() {
        ["booted"] => {
            // The receiver is gone when nobody waits for the boot any more.
            let _ = booted.send(());
            Ok(())
        }
        ["plug", serial] => {
            let serial = serial_number(serial)?;
            let image = Stick::path(images, &serial);
            if !image.is_file() {
                bail!("there is no stick {serial} yet: give its size");
            }
            qmp.plug(&serial, &image)
        }
        ["plug", serial, shape] => {
            let stick = Stick::from_request(serial, shape)?;
            let image = stick.make(images)?;
            qmp.plug(&stick.serial, &image)
        }
        ["insert", serial, shape] => {
            let card = Stick::from_request(serial, shape)?;
            let image = card.make(images)?;
            qmp.insert(&card.serial, &image)
        }
        ["eject", serial] => qmp.eject(&serial_number(serial)?),
        ["connect", serial] => {
            let serial = serial_number(serial)?;
            let files = images.join(format!("phone-{serial}"));
            crate::cache::make(&files)?;
            qmp.connect(&serial, &files)
        }
        ["disconnect", serial] => qmp.disconnect(&serial_number(serial)?),
        ["unplug", serial] => qmp.unplug(&serial_number(serial)?),
        _ => bail!("{line:?} is not understood"),
    }
}
