//! Stands between an operator's token and the admin API.
//!
//! Invariant: the token is compared in constant time, by keyed hash, and never printed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use lanekeeper_actors::gateway::{Random, secret_file};
use lanekeeper_actors::policy::keys::{ApiKeySecret, KeyHash, Pepper};

/// Environment variable that gives the token.
pub const VARIABLE: &str = "LANEKEEPER_ADMIN_TOKEN";
/// File in the data directory that has the token otherwise.
pub const FILE: &str = "admin.token";

/// What is kept of the token.
pub struct Token {
    hash: KeyHash,
    pepper: Pepper,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// No token, or another one. One answer for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("send the admin token as `Authorization: Bearer …`; it lies in the data directory as `admin.token`")]
pub struct TokenRefused;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or made.
    #[error("`{path}`: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// The file has nothing in it.
    #[error("`{0}` is empty: delete it to get a new token")]
    Empty(PathBuf),
}

impl Token {
    /// The token of the environment, else the one in `data`, which is made on the first start.
    pub fn load(
        data: &Path,
        environment: &[(String, String)],
        random: &dyn Random,
        pepper: &Pepper,
    ) -> Result<Self, TokenError> {
        let given = environment.iter().find(|(name, value)| name == VARIABLE && !value.is_empty());
        let text = match given {
            Some((_, value)) => value.clone(),
            None => from_file(&data.join(FILE), random)?,
        };
        Ok(Self { hash: pepper.hash(&text), pepper: pepper.clone() })
    }

    /// Whether a request has the token.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), TokenRefused> {
        let mut values = headers.get_all(AUTHORIZATION);
        let (Some(value), None) = (values.next(), values.next()) else { return Err(TokenRefused) };
        let value = value.to_str().map_err(|_| TokenRefused)?;
        let (scheme, token) = value.split_once(' ').ok_or(TokenRefused)?;
        let same = self.pepper.hash(token.trim()) == self.hash;
        if same && scheme.eq_ignore_ascii_case("bearer") { Ok(()) } else { Err(TokenRefused) }
    }
}

fn from_file(path: &Path, random: &dyn Random) -> Result<String, TokenError> {
    let io = |source| TokenError::Io { path: path.to_owned(), source };
    if let Some(bytes) = secret_file::read(path).map_err(io)? {
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        return if text.is_empty() { Err(TokenError::Empty(path.to_owned())) } else { Ok(text) };
    }
    let secret = ApiKeySecret::generate(random.bytes());
    secret_file::create(path, secret.expose().as_bytes()).map_err(io)?;
    Ok(secret.expose().to_owned())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use lanekeeper_actors::gateway::SystemRandom;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_token_is_made_once_and_nothing_else_opens_the_door() {
        let folder = tempfile::tempdir().unwrap();
        let load = |environment: &[(String, String)]| {
            Token::load(folder.path(), environment, &SystemRandom, &Pepper::new([7; 32])).unwrap()
        };
        let token = load(&[]);
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        for token in [&token, &load(&[(VARIABLE.into(), String::new())])] {
            assert!(token.check(&headers(&[&format!("Bearer {text}")])).is_ok());
            assert!(token.check(&headers(&[&format!("bearer  {text}")])).is_ok());
            for wrong in [
                vec![],
                vec!["Bearer"],
                vec!["Bearer "],
                vec!["Bearer x"],
                vec![text.as_str()],
                vec![&format!("Basic {text}")],
                vec![&format!("Bearer {text}"), &format!("Bearer {text}")],
            ] {
                assert_eq!(token.check(&headers(&wrong)), Err(TokenRefused), "{wrong:?}");
            }
        }
        let token = load(&[(VARIABLE.into(), "from-outside".into())]);
        assert!(token.check(&headers(&["Bearer from-outside"])).is_ok());
        assert!(token.check(&headers(&[&format!("Bearer {text}")])).is_err());
        assert!(!format!("{token:?}").contains("outside"));
    }
}
