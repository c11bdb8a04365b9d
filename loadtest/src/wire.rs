//! Stands between a closed loop and the server: requests and answers as bytes, with as little work as it takes, because
//! the tool shares its cores with the server.
//! Invariant: an answer is read whole before the next request is sent.

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::target::Target;

/// Longest head of an answer.
const HEAD_MAX: usize = 16 * 1_024;

/// One kept-alive HTTP/1.1 connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where the body of the last answer begins and ends; its head is before it.
    body: std::ops::Range<usize>,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target.address).await.context("the server takes no connection")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(HEAD_MAX), body: 0..0 })
    }

    /// Sends one request and reads its whole answer; returns the status.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if self.buffer.len() > HEAD_MAX {
                bail!("the head of an answer is too long");
            }
            self.more().await?;
        };
        let text = self.buffer.get(..head).unwrap_or_default();
        let status = text.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        let status = status.and_then(|digits| digits.parse().ok()).context("an answer without a status")?;
        let length = length(text).context("an answer without `content-length`")?;
        while self.buffer.len() < head + length {
            self.more().await?;
        }
        self.body = head..head + length;
        Ok(status)
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.buffer.get(self.body.clone()).unwrap_or_default()
    }

    /// The value of a header of the last answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(self.buffer.get(..self.body.start)?).ok()?;
        value(head, name)
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the server closed a connection");
        }
        Ok(())
    }
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

/// The value of `content-length`; 0 for an answer that has no body.
fn length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    match value(head, "content-length") {
        Some(length) => length.parse().ok(),
        None => Some(0).filter(|_| head.starts_with("HTTP/1.1 204")),
    }
}

fn value<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The head of a request, as bytes; `body` is the length of the JSON that follows.
pub(crate) fn head(target: &Target, method: &str, path: &str, body: Option<usize>) -> Vec<u8> {
    let host = target.host.to_str().unwrap_or_default();
    let key = target.key.to_str().unwrap_or_default();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\n");
    if let Some(length) = body {
        head.push_str("content-type: application/json\r\n");
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_any_case() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nx-continuation:abc:d\r\n\r\n";
        assert_eq!(length(head.as_bytes()), Some(12));
        assert_eq!(value(head, "X-Continuation"), Some("abc:d"));
        assert_eq!(value(head, "x-none"), None);
        assert_eq!(length(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(0));
        assert_eq!(length(b"HTTP/1.1 200 OK\r\n\r\n"), None);
    }
}
