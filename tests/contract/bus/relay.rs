//! The Pub/Sub emulator, made to behave as the service does when a consumer disconnects.
//!
//! A client cancels a stream by resetting it. The emulator (0.8.20) fails on that: its log contains `NoSuchMethodError` in
//! `onRstStreamRead`, because it was packaged with parts of two releases of gRPC. It never detects that the consumer is gone,
//! delivers message after message to it, and each is unavailable to others for a minute. The service does nothing like that, and
//! no client can work around it: what is published long after the reset is affected too.
//!
//! So clients connect through this relay. It passes on every byte, but converts a reset to the end of the client's side of the
//! stream, which the emulator handles. Of HTTP/2 it parses only where a frame begins and ends.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

/// The start of every HTTP/2 connection; the emulator supports HTTP/1.1 on the same port.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The types of frames that matter here (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
/// The flag of the first two that ends the sender's side of a stream.
const END_STREAM: u8 = 1;

/// Opens a relay to `emulator` that runs as long as the process, and returns its address.
pub fn open(emulator: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let emulator = emulator.clone();
            thread::spawn(move || {
                // Either side may close at any time.
                let _ = serve(client, &emulator);
            });
        }
    });
    address
}

fn serve(mut client: TcpStream, emulator: &str) -> io::Result<()> {
    let mut server = TcpStream::connect(emulator)?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
    }
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let result = ask(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
    result
}

fn ask(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    let mut start = [0; 3];
    client.read_exact(&mut start)?;
    server.write_all(&start)?;
    if start != PREFACE[..3] {
        return io::copy(client, server).map(|_| ());
    }
    let mut rest = [0; PREFACE.len() - 3];
    client.read_exact(&mut rest)?;
    server.write_all(&rest)?;
    let mut ended = HashSet::new();
    loop {
        // Length (3 bytes), type, flags, stream (4 bytes).
        let mut head = [0; 9];
        client.read_exact(&mut head)?;
        let [long, longer, longest, kind, flags, stream @ ..] = head;
        let mut body = vec![0; u32::from_be_bytes([0, long, longer, longest]) as usize];
        client.read_exact(&mut body)?;
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if ends || kind == RST_STREAM {
            let updates = ended.insert(stream);
            if kind == RST_STREAM {
                if updates {
                    let [a, b, c, d] = stream;
                    server.write_all(&[0, 0, 0, DATA, END_STREAM, a, b, c, d])?;
                }
                continue;
            }
        }
        server.write_all(&[&head[..], &body].concat())?;
    }
}
