//! Servers on the loopback, one connection after the other.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes a certificate for this host, and puts it as `ca.pem` where clients find it.
pub fn acceptor(dir: &Path) -> TlsAcceptor {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.join("ca.pem"), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Gives each connection to `serve`, one after the other, and hands on what it saw.
pub async fn listen<T, F>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, mpsc::UnboundedReceiver<T>)
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if sender.send(serve(stream).await).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

/// Reads a request and writes `answer`; what was read, head and body.
pub async fn http(mut stream: impl Stream, answer: &str) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(&mut stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).await.unwrap_or(0) > 0 {}
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length: ").map(|it| it.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).await.unwrap();
    // The client need not read all of it.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    (head, body)
}

/// How a mail server answers. What is not said here succeeds.
#[derive(Clone, Default)]
pub struct Mta {
    pub acceptor: Option<TlsAcceptor>,
    /// TLS by STARTTLS.
    pub starttls: bool,
    /// STARTTLS is not offered.
    pub strips: bool,
    /// Says this in the clear behind the answer to STARTTLS.
    pub injects: &'static str,
    pub auth: Option<&'static str>,
    /// Recipients and the answers that they get, the first time and later.
    pub refused: Vec<(&'static str, &'static str)>,
    pub data: Option<&'static str>,
}

/// What one connection said.
#[derive(Debug, Default)]
pub struct Session {
    /// Commands in the clear.
    pub clear: Vec<String>,
    /// Commands in TLS.
    pub commands: Vec<String>,
    /// The mail.
    pub mail: Option<String>,
}

impl Session {
    pub fn of(&self, verb: &str) -> Vec<&str> {
        let commands = self.commands.iter().filter_map(|it| it.strip_prefix(verb));
        commands.map(str::trim).collect()
    }
}

impl Mta {
    pub async fn serve(&self, mut stream: TcpStream) -> Session {
        let mut session = Session::default();
        let acceptor = self.acceptor.clone().unwrap();
        if self.starttls {
            let mut reader = BufReader::new(&mut stream);
            say(&mut reader, "220 mx ESMTP\r\n").await;
            loop {
                let Some(command) = hear(&mut reader).await else { return session };
                session.clear.push(command.clone());
                match command.as_str() {
                    "STARTTLS" => break,
                    "QUIT" => return session,
                    _ if self.strips => say(&mut reader, "250-mx\r\n250 SIZE 1000\r\n").await,
                    _ => say(&mut reader, "250-mx\r\n250-SIZE 1000\r\n250 STARTTLS\r\n").await,
                }
            }
            say(&mut reader, &format!("220 go\r\n{}", self.injects)).await;
        }
        let Ok(stream) = acceptor.accept(stream).await else { return session };
        let mut reader = BufReader::new(stream);
        if !self.starttls {
            say(&mut reader, "220-mx\r\n220 ESMTP\r\n").await;
        }
        self.dialog(&mut reader, &mut session).await;
        session
    }

    async fn dialog<S: Stream>(&self, reader: &mut BufReader<S>, session: &mut Session) {
        while let Some(command) = hear(reader).await {
            session.commands.push(command.clone());
            let verb = command.split([' ', ':']).next().unwrap();
            match verb {
                "EHLO" => say(reader, "250-mx\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN\r\n").await,
                "AUTH" => say(reader, self.auth.unwrap_or("235 in\r\n")).await,
                "RCPT" => {
                    let refused = self.refused.iter().find(|it| command.contains(it.0));
                    say(reader, refused.map_or("250 ok\r\n", |it| it.1)).await;
                }
                "DATA" => {
                    say(reader, "354 go\r\n").await;
                    let mut mail = String::new();
                    while !mail.ends_with("\r\n.\r\n") {
                        if reader.read_line(&mut mail).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    session.mail = Some(mail);
                    say(reader, self.data.unwrap_or("250 queued\r\n")).await;
                }
                "QUIT" => return say(reader, "221 bye\r\n").await,
                _ => say(reader, "250 ok\r\n").await,
            }
        }
    }
}

async fn hear(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = String::new();
    let read = reader.read_line(&mut line).await.unwrap_or(0);
    (read > 0).then(|| line.trim_end().to_owned())
}

async fn say<S: Stream>(stream: &mut BufReader<S>, text: &str) {
    // The client may be gone.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.flush().await;
}

/// What base64 stands for; anything else is left out.
pub fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in text.bytes() {
        let Some(value) = LETTERS.iter().position(|it| *it == letter) else { continue };
        bits = bits << 6 | u32::try_from(value).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    bytes
}
