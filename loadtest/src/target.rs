//! Stands between the command line and the client: which server may be loaded, and with which credential.
//! Invariant: no request leaves for a host that is not this one, unless its owner said so.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use hyper::header::HeaderValue;

/// A mistake in how the tool was called; the process ends with 64.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A gateway to send requests to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// The `Host` header.
    pub(crate) host: HeaderValue,
    /// The API key. Marked sensitive, so that it never shows when printed.
    pub(crate) key: HeaderValue,
}

impl Target {
    /// Takes a URL such as `http://127.0.0.1:8080`. A host other than this one is refused unless `owned`.
    pub(crate) async fn new(url: &str, key: &str, owned: bool) -> anyhow::Result<Self> {
        let (host, port) = host_and_port(url)?;
        if !owned && !is_loopback(&host) {
            return Err(Usage(format!(
                "`{host}` is not this machine; load only hosts that are yours, and say so with --i-own-this-host"
            ))
            .into());
        }
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut addresses =
            tokio::net::lookup_host(&authority).await.with_context(|| format!("cannot resolve `{host}`"))?;
        let address = addresses.next().with_context(|| format!("`{host}` has no address"))?;
        // A name may resolve to anything; the guard is about where the requests really go.
        if !owned && !address.ip().is_loopback() {
            return Err(
                Usage(format!("`{host}` resolves to `{}`, which is not this machine", address.ip())).into()
            );
        }
        let mut key =
            HeaderValue::from_str(key).map_err(|_| Usage("the key is not a header value".to_owned()))?;
        key.set_sensitive(true);
        Ok(Self { address, host: HeaderValue::from_str(&authority)?, key })
    }
}

/// Splits `http://host[:port]`; the port defaults to 80.
pub(crate) fn host_and_port(url: &str) -> Result<(String, u16), Usage> {
    let wrong = || Usage(format!("`{url}` is not a URL such as http://127.0.0.1:8080"));
    let uri: hyper::Uri = url.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("http") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong());
    }
    let host = uri.host().ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((host.to_owned(), uri.port_u16().unwrap_or(80)))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(url: &str, owned: bool) -> Option<String> {
        let error = Target::new(url, "key", owned).await.err()?;
        Some(error.downcast_ref::<Usage>().expect("a mistake in usage").to_string())
    }

    #[tokio::test]
    async fn hosts_other_than_this_one_are_refused() {
        for url in [
            "http://192.0.2.1:8080",
            "http://10.0.0.1",
            "http://[2001:db8::1]:80",
            "http://127.0.0.1.example",
            "http://0.0.0.0:1",
        ] {
            assert!(
                refused(url, false).await.is_some_and(|text| text.contains("--i-own-this-host")),
                "{url}"
            );
        }
    }

    #[tokio::test]
    async fn a_host_is_loaded_when_its_owner_says_so() {
        let target = Target::new("http://192.0.2.1:8080", "key", true).await.unwrap();
        assert_eq!(target.address, "192.0.2.1:8080".parse().unwrap());
        assert_eq!(target.host, "192.0.2.1:8080");
    }

    #[tokio::test]
    async fn this_machine_needs_no_permission() {
        for url in
            ["http://127.0.0.1:8080", "http://127.3.2.1:8080", "http://[::1]:8080", "http://localhost:8080/"]
        {
            assert_eq!(refused(url, false).await, None, "{url}");
        }
    }

    #[tokio::test]
    async fn what_is_not_a_plain_http_url_is_refused() {
        for url in ["", "127.0.0.1:8080", "https://127.0.0.1", "http://127.0.0.1/path", "http://"] {
            assert!(refused(url, true).await.is_some(), "{url}");
        }
    }

    #[tokio::test]
    async fn the_key_does_not_show_when_printed() {
        let target = Target::new("http://127.0.0.1:1", "lk_secret", false).await.unwrap();
        assert!(!format!("{target:?}").contains("lk_secret"));
    }
}
