//! A plain HTTP/1.1 client: it sends exactly the bytes that a test wants on the wire.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::PATIENCE;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

pub(crate) async fn get(to: SocketAddr, path: &str) -> Answer {
    request(to, "GET", path, &[], b"").await
}

pub(crate) async fn post(
    to: SocketAddr,
    path: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Answer {
    request(to, "POST", path, headers, body).await
}

pub(crate) async fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Answer {
    raw(to, &bytes_of(method, path, headers, body)).await
}

fn bytes_of(method: &str, path: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name == "Host") {
        head += "Host: relay\r\n";
    }
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.extend(["Content-Length: ", &body.len().to_string(), "\r\n\r\n"]);
    [head.as_bytes(), body].concat()
}

/// Posts like [`post`]; returns `None` if no server listens, or the connection breaks.
pub(crate) async fn try_post(
    to: SocketAddr,
    path: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Option<Answer> {
    let mut stream = TcpStream::connect(to).await.ok()?;
    stream.write_all(&bytes_of("POST", path, headers, body)).await.ok()?;
    try_read(&mut stream).await
}

/// Sends the bytes and reads one answer.
pub(crate) async fn raw(to: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // A server that has answered may close while we still write.
    drop(stream.write_all(bytes).await);
    read(&mut stream).await
}

/// Reads one answer. An answer without a body of known length ends with the connection.
pub(crate) async fn read(stream: &mut TcpStream) -> Answer {
    try_read(stream).await.expect("closed without an answer")
}

async fn try_read(stream: &mut TcpStream) -> Option<Answer> {
    let answer = tokio::time::timeout(PATIENCE, async {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 65_536];
        loop {
            if let Some(answer) = parse(&bytes) {
                return Some(answer);
            }
            let read = stream.read(&mut piece).await.unwrap_or(0);
            bytes.extend_from_slice(&piece[..read]);
            if read == 0 {
                return None;
            }
        }
    });
    answer.await.expect("no answer")
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let body = bytes[end + 4..].to_vec();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    (body.len() >= length).then_some(Answer { status, head, body })
}
