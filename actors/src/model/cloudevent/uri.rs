//! Whether a text is a URI or a URI reference (RFC 3986, appendix A).

/// Whether a text is a URI reference: a URI, or what is relative to one. Not empty here, though the
/// grammar would allow it.
pub(super) fn is_uri_reference(text: &str) -> bool {
    match scheme(text) {
        Some(rest) => is_hierarchical(rest),
        // The first segment of a relative path has no colon; it would be a scheme.
        None => {
            !text.split(['/', '?', '#']).next().unwrap_or_default().contains(':') && is_hierarchical(text)
        }
    }
}

/// Whether a text is a URI: it has a scheme.
pub(super) fn is_uri(text: &str) -> bool {
    scheme(text).is_some_and(is_hierarchical)
}

/// What follows the scheme and its colon.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let starts = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic());
    (starts && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))).then_some(rest)
}

/// Authority, path, query and fragment.
fn is_hierarchical(text: &str) -> bool {
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let path = match text.strip_prefix("//") {
        None => text,
        Some(rest) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            if !is_authority(authority) {
                return false;
            }
            path
        }
    };
    has_only(path, b"/:@") && has_only(query, b"/?:@") && has_only(fragment, b"/?:@")
}

fn is_authority(text: &str) -> bool {
    let host_port = match text.rsplit_once('@') {
        Some((user, _)) if !has_only(user, b":") => return false,
        Some((_, host_port)) => host_port,
        None => text,
    };
    let (host_is_right, port) = match host_port.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((literal, "")) => (is_literal(literal), ""),
            Some((literal, port)) => match port.strip_prefix(':') {
                Some(port) => (is_literal(literal), port),
                None => (false, ""),
            },
            None => (false, ""),
        },
        None => {
            let (host, port) = host_port.split_once(':').unwrap_or((host_port, ""));
            (has_only(host, b""), port)
        }
    };
    host_is_right && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// An address in brackets: IPv6, or a form that is still to come.
fn is_literal(text: &str) -> bool {
    let future = text.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.'));
    match future {
        Some((version, rest)) => {
            let hex = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
            hex && !rest.is_empty() && !rest.contains('%') && has_only(rest, b":")
        }
        None => text.parse::<std::net::Ipv6Addr>().is_ok(),
    }
}

/// Whether a text has only unreserved characters, sub-delimiters, percent-encoded bytes, and `others`.
fn has_only(text: &str, others: &[u8]) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is_right = match byte {
            b'%' => {
                let mut digit = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
                digit() && digit()
            }
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte) || others.contains(&byte),
        };
        if !is_right {
            return false;
        }
    }
    true
}
