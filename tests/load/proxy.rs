//! A way that takes time: bytes of one TCP connection come through later, as many as there are.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces on their way: more than any window of HTTP/2 has.
const PIECES_MAX: usize = 4096;

/// Listens for one connection, which is led on to `to`; each direction takes `delay`.
///
/// # Errors
/// When there is no port.
pub fn start(to: SocketAddr, delay: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        if let Err(error) = lead(&listener, to, delay) {
            eprintln!("proxy: {error:#}");
        }
    });
    Ok(address)
}

fn lead(listener: &TcpListener, to: SocketAddr, delay: Duration) -> Result<()> {
    let (near, _) = listener.accept()?;
    let far = TcpStream::connect(to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    one_way(near.try_clone()?, far.try_clone()?, delay);
    one_way(far, near, delay);
    Ok(())
}

/// Threads that wait by themselves: timers of tokio know whole milliseconds only.
fn one_way(mut from: TcpStream, to: TcpStream, delay: Duration) {
    let (pieces, arrivals) = sync_channel(PIECES_MAX);
    thread::spawn(move || write(&arrivals, to));
    thread::spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        // An end of the connection, in whatever way, is the end of this direction.
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let piece = buffer.get(..length).unwrap_or_default().to_vec();
            if pieces.send((Instant::now() + delay, piece)).is_err() {
                break;
            }
        }
    });
}

fn write(arrivals: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (at, piece) in arrivals {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_through_as_they_were_and_late() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = start(echo.local_addr().unwrap(), Duration::from_millis(20)).unwrap();
        thread::spawn(move || {
            let (stream, _) = echo.accept().unwrap();
            std::io::copy(&mut &stream, &mut &stream).unwrap();
        });
        let mut stream = TcpStream::connect(address).unwrap();
        let began = Instant::now();
        stream.write_all(b"x").unwrap();
        let mut one = [0];
        stream.read_exact(&mut one).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(40));
        let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let mut writer = stream.try_clone().unwrap();
        let all = sent.clone();
        thread::spawn(move || {
            writer.write_all(&all).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received == sent);
    }
}
