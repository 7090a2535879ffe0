//! The few words of SMTP before STARTTLS (RFC 3207).
//!
//! Nothing that came before the encryption is believed behind it. A client that keeps what it had
//! read takes the words of somebody in between for those of the server, so the dialog up to here
//! is held apart from the one behind, and a server that says more than it should is refused.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::io::{BufReader, Take};
use tokio::net::TcpStream;

use super::error::SendError;
use super::words::one_line;
use crate::limits::{ANSWER_TOLD_BYTES_MAX, SMTP_BYTES_MAX};

type Reader = Take<BufReader<TcpStream>>;

/// Brings the connection to where the handshake begins. `hello` is what EHLO says.
pub(super) async fn begin(stream: TcpStream, hello: &str) -> Result<TcpStream, SendError> {
    let mut reader = BufReader::new(stream).take(SMTP_BYTES_MAX as u64);
    expect(&mut reader, 220, "greets").await?;
    let offered = ask(&mut reader, &format!("EHLO {hello}\r\n"), 250, "EHLO").await?;
    if !offered.iter().any(|line| line.trim().eq_ignore_ascii_case("STARTTLS")) {
        return Err(SendError::retry(
            "the mail server does not offer STARTTLS, and nothing is sent without: say \
             `tls: implicit` with port 465, or mend the server",
        ));
    }
    ask(&mut reader, "STARTTLS\r\n", 220, "STARTTLS").await?;
    let reader = reader.into_inner();
    if !reader.buffer().is_empty() {
        return Err(SendError::retry(
            "the mail server said something between STARTTLS and the handshake, as somebody in \
             between would",
        ));
    }
    Ok(reader.into_inner())
}

async fn ask(
    reader: &mut Reader,
    command: &str,
    code: u16,
    what: &str,
) -> Result<Vec<String>, SendError> {
    let written = reader.get_mut().write_all(command.as_bytes()).await;
    written.map_err(|error| SendError::retry(format!("the mail server is gone: {error}")))?;
    expect(reader, code, what).await
}

/// The lines of one answer without their codes. Answers that are refused are not final: they
/// cannot be about the notice.
async fn expect(
    reader: &mut (impl AsyncBufRead + Unpin),
    code: u16,
    what: &str,
) -> Result<Vec<String>, SendError> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let read = reader.read_line(&mut line).await;
        let read =
            read.map_err(|error| SendError::retry(format!("the mail server is gone: {error}")))?;
        if read == 0 {
            return Err(SendError::retry(format!("the mail server ended the connection ({what})")));
        }
        let answered = line.get(..3).and_then(|it| it.parse::<u16>().ok());
        if answered != Some(code) {
            let told = one_line(line.trim_end(), ANSWER_TOLD_BYTES_MAX);
            return Err(SendError::retry(format!("the mail server answers {what} with: {told}")));
        }
        lines.push(line.get(4..).unwrap_or_default().trim_end().to_owned());
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(lines);
        }
    }
}
