//! Passwords and tokens. They come from the environment or a file, never from the command line, which every user of the machine
//! can read.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A password, a token, or a URL that may have a password. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why a secret can't be read. It never has the secret itself.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The environment variable and the file are both given.
    #[error("{name} and {name}_FILE are both set: leave one of them out")]
    Ambiguous {
        /// The environment variable.
        name: &'static str,
    },
    /// The file can't be read.
    #[error("reading {} ({name}_FILE) failed", path.display())]
    Unreadable {
        /// The environment variable of the secret itself.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has no text.
    #[error("{} ({name}_FILE) is empty", path.display())]
    Empty {
        /// The environment variable of the secret itself.
        name: &'static str,
        /// The file.
        path: PathBuf,
    },
}

impl Secret {
    /// The secret in an environment variable; none if the variable is not set, or empty.
    #[must_use]
    pub fn from_env(name: &str) -> Option<Self> {
        std::env::var(name).ok().filter(|value| !value.is_empty()).map(Self)
    }

    /// The secret that is called `name` in the environment: `given` from there, or what `file` has. One line break at the end of
    /// the file, as editors make it, does not belong to the secret.
    ///
    /// # Errors
    /// When both are given, or the file can't be read or is empty.
    pub fn of(name: &'static str, given: Option<&Self>, file: Option<&Path>) -> Result<Option<Self>, SecretError> {
        match (given, file) {
            (Some(_), Some(_)) => Err(SecretError::Ambiguous { name }),
            (Some(secret), None) => Ok(Some(secret.clone())),
            (None, Some(path)) => Self::read(name, path).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The secret in the file that the environment variable `<name>_FILE` names.
    ///
    /// # Errors
    /// When the file can't be read, or is empty.
    pub fn read(name: &'static str, path: &Path) -> Result<Self, SecretError> {
        let unreadable = |source| SecretError::Unreadable { name, path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err(SecretError::Empty { name, path: path.to_owned() });
        }
        Ok(Self(line.to_owned()))
    }

    /// The secret itself, for the client that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// A file of this test alone.
    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cart-secret-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn debug_does_not_show_a_secret() {
        let secret = Secret::from(String::from("hunter2"));
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret Some(Secret)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_file_is_read_without_one_line_break_at_its_end() {
        for (number, (text, secret)) in
            [("a b\n", "a b"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), (" a ,=\n", " a ,=")].iter().enumerate()
        {
            let path = file(&format!("read-{number}"), text);
            assert_eq!(Secret::of("X", None, Some(&path)).unwrap().unwrap().expose(), *secret, "{text:?}");
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn errors_name_the_setting_and_not_the_secret() {
        let secret = Secret::from(String::from("hunter2"));
        let empty = file("empty", "\n");
        let missing = Path::new("/nowhere/password");
        for (given, path, error) in [
            (Some(&secret), missing, "KAFKA_PASSWORD and KAFKA_PASSWORD_FILE are both set: leave one of them out"),
            (None, missing, "reading /nowhere/password (KAFKA_PASSWORD_FILE) failed"),
            (None, &empty, &format!("{} (KAFKA_PASSWORD_FILE) is empty", empty.display())),
        ] {
            let found = Secret::of("KAFKA_PASSWORD", given, Some(path)).unwrap_err();
            assert_eq!(found.to_string(), error);
            assert!(!format!("{found:?}").contains("hunter2"));
        }
        assert_eq!(Secret::of("KAFKA_PASSWORD", None, None).unwrap(), None);
        fs::remove_file(empty).unwrap();
    }
}
