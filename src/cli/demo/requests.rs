//! Just enough of HTTP/1.1 to be called by webhooks on loopback: a head, a body of known length, one answer.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 32 << 10;
/// Longest body: a document of 2 MiB and its envelope.
const BODY_MAX: usize = 3 << 20;
/// Bytes read at once.
const CHUNK: usize = 16 << 10;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The path, with its leading slash.
    pub(super) path: String,
    /// Header fields; names in lower case.
    headers: Vec<(String, String)>,
    /// The body.
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The value of a header field.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn parse(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        Some(Self { path, headers, body: Vec::new() })
    }
}

/// One connection, kept open for many requests.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next request, or `None` when the other side is done.
    pub(super) async fn next(&mut self) -> io::Result<Option<Request>> {
        let end = loop {
            if let Some(end) = self.buffer.windows(END_OF_HEAD.len()).position(|four| four == END_OF_HEAD) {
                break end;
            }
            if self.buffer.len() > HEAD_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if !self.more().await? {
                return Ok(None);
            }
        };
        let rest = self.buffer.split_off(end + END_OF_HEAD.len());
        let head = std::mem::replace(&mut self.buffer, rest);
        let head = head.get(..end).and_then(|head| std::str::from_utf8(head).ok()).and_then(Request::parse);
        let Some(mut request) = head else { return Err(io::ErrorKind::InvalidData.into()) };
        let length = request.header("content-length").map_or(Some(0), |length| length.parse().ok());
        let Some(length) = length.filter(|length| *length <= BODY_MAX) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        while self.buffer.len() < length {
            if !self.more().await? {
                return Ok(None);
            }
        }
        let rest = self.buffer.split_off(length);
        request.body = std::mem::replace(&mut self.buffer, rest);
        Ok(Some(request))
    }

    /// Answers with a status and nothing else.
    pub(super) async fn answer(&mut self, status: u16) -> io::Result<()> {
        let length = if status == 204 { "" } else { "content-length: 0\r\n" };
        self.stream.write_all(format!("HTTP/1.1 {status} .\r\n{length}\r\n").as_bytes()).await
    }

    /// Reads on; `false` at the end of the stream.
    async fn more(&mut self) -> io::Result<bool> {
        self.buffer.reserve(CHUNK);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn requests_are_read_one_after_the_other_from_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut connection = Connection::new(listener.accept().await.unwrap().0);
        client
            .write_all(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX-Delivery-Attempt: 2\r\n\r\nabcPOST /b HT")
            .await
            .unwrap();
        let first = connection.next().await.unwrap().unwrap();
        assert_eq!((first.path.as_str(), first.body.as_slice()), ("/a", &b"abc"[..]));
        assert_eq!(first.header("x-delivery-attempt"), Some("2"));
        client.write_all(b"TP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(connection.next().await.unwrap().unwrap().path, "/b");
        connection.answer(503).await.unwrap();
        let mut answer = [0; 37];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 503 .\r\ncontent-length: 0\r\n\r\n");
        drop(client);
        assert_eq!(connection.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_length_beyond_reason_ends_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut connection = Connection::new(listener.accept().await.unwrap().0);
        client.write_all(b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n").await.unwrap();
        assert!(connection.next().await.is_err());
    }
}
