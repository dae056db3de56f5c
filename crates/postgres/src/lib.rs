//! PostgreSQL as this project uses it: where it is, what an error of a connection means, which generation of its read model is
//! the active one, and which of its rows are parked.

pub mod parked_rows;
pub mod read_models;

use std::path::PathBuf;

use service::{Secret, SecretError};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

/// How to reach PostgreSQL.
#[derive(Debug, Clone, clap::Args)]
pub struct DatabaseArgs {
    /// URL of the PostgreSQL database, such as postgres://cart@db.example/cart?sslmode=verify-full
    #[arg(long, env, help_heading = "Common", value_parser = url, hide_env_values = true, default_value = DEFAULT_URL)]
    pub database_url: Secret,

    /// File with the password of the database's user; without it the variable DATABASE_PASSWORD or the URL has the password
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,

    /// The password, from the environment alone.
    #[arg(skip = Secret::from_env(PASSWORD))]
    pub database_password: Option<Secret>,
}

/// What `scripts/services up` starts.
const DEFAULT_URL: &str = "postgres://cart:cart@127.0.0.1:5432/cart";

/// The variable with the password, and the name of its file with `_FILE`.
const PASSWORD: &str = "DATABASE_PASSWORD";

/// A URL is a secret: it may have a password.
fn url(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::from(text.to_owned()))
}

/// Why there is no connection. `Display` says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is invalid.
    #[error("reading --database-url failed")]
    Url(#[source] sqlx::Error),
    /// The password can't be read.
    #[error(transparent)]
    Password(#[from] SecretError),
    /// The server can't be reached, or rejects the connection.
    #[error("connecting to PostgreSQL failed{}", advice(.0).map(|advice| format!(" ({advice})")).unwrap_or_default())]
    Connection(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Connection(error)
    }
}

impl Error {
    /// The error of the driver, where the connection failed.
    #[must_use]
    pub fn connection(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Connection(error) => Some(error),
            Self::Url(_) | Self::Password(_) => None,
        }
    }
}

/// SQLSTATE of a wrong password, and of a user, host or encryption that pg_hba.conf rejects.
const INVALID_PASSWORD: &str = "28P01";
const INVALID_AUTHORIZATION: &str = "28000";

fn advice(error: &sqlx::Error) -> Option<&'static str> {
    if let Some(code) = error.as_database_error().and_then(|error| error.code()) {
        return match code.as_ref() {
            INVALID_PASSWORD => Some("check the user in --database-url, and DATABASE_PASSWORD_FILE"),
            INVALID_AUTHORIZATION => {
                Some("the server's pg_hba.conf rejects user, host or encryption: check sslmode in --database-url")
            }
            _ => None,
        };
    }
    let text = error.to_string();
    let advices = [
        (
            "UnknownIssuer",
            "no trusted authority has signed the server's certificate: add sslrootcert=FILE to --database-url",
        ),
        ("xpired", "renew the server's certificate"),
        ("alid for name", "the server's certificate is not for the host in --database-url: use a name that it has"),
        ("does not support TLS", "the server has no TLS: check its `ssl`, or sslmode in --database-url"),
    ];
    advices.into_iter().find(|(part, _)| text.contains(part)).map(|(_, advice)| advice)
}

impl DatabaseArgs {
    /// For the database at a URL, with its password in the URL, if it has one.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self { database_url: url.to_owned().into(), database_password_file: None, database_password: None }
    }

    /// What a connection is made with. The file of the password is read each time, so a new connection has a new password.
    ///
    /// # Errors
    /// When the URL is invalid, or the password can't be read.
    pub fn options(&self) -> Result<PgConnectOptions, Error> {
        let options: PgConnectOptions = self.database_url.expose().parse().map_err(Error::Url)?;
        let password = Secret::of(PASSWORD, self.database_password.as_ref(), self.database_password_file.as_deref())?;
        Ok(match password {
            Some(password) => options.password(password.expose()),
            None => options,
        })
    }

    /// A pool with at least one connection.
    ///
    /// # Errors
    /// When the settings are invalid, or the server can't be reached.
    pub async fn connect(&self) -> Result<PgPool, Error> {
        Ok(PgPool::connect_with(self.options()?).await?)
    }

    /// A pool that connects at the first query.
    ///
    /// # Errors
    /// When the settings are invalid.
    pub fn connect_lazy(&self, pool: PgPoolOptions) -> Result<PgPool, Error> {
        Ok(pool.connect_lazy_with(self.options()?))
    }

    /// Lets the pool's next connections have the password that the file has by now. For a pool whose server rejects it, perhaps
    /// for its old password; connections that are there stay.
    ///
    /// # Errors
    /// When the password can't be read.
    pub fn renew_password(&self, pool: &PgPool) -> Result<(), Error> {
        if let Some(path) = &self.database_password_file {
            let password = Secret::read(PASSWORD, path)?;
            pool.set_connect_options((*pool.connect_options()).clone().password(password.expose()));
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::Parser;
    use sqlx::ConnectOptions as _;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        database: DatabaseArgs,
    }

    #[test]
    fn the_password_of_a_file_takes_the_place_of_the_urls() {
        let path = std::env::temp_dir().join(format!("cart-database-password-{}", std::process::id()));
        std::fs::write(&path, "p@ss/word\n").unwrap();
        let path_text = path.to_str().unwrap();
        for url in ["postgres://cart@db.example/cart?sslmode=verify-full", "postgres://cart:old@db.example/cart"] {
            let args = ["test", "--database-url", url, "--database-password-file", path_text];
            let args = Cli::parse_from(args).database;
            assert!(args.options().unwrap().to_url_lossy().as_str().contains("cart:p%40ss%2Fword@db.example"));
            assert!(!format!("{args:?}").contains("old"), "{args:?}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_pool_follows_the_file_of_the_password_and_keeps_its_other_settings() {
        let path = std::env::temp_dir().join(format!("cart-database-new-password-{}", std::process::id()));
        let write = |password: &str| std::fs::write(&path, password).unwrap();
        write("old\n");
        let args =
            DatabaseArgs { database_password_file: Some(path.clone()), ..DatabaseArgs::at("postgres://cart@db/cart") };
        let options = args.options().unwrap().application_name("totals");
        let pool = PgPoolOptions::new().connect_lazy_with(options);
        write("new\n");
        args.renew_password(&pool).unwrap();
        let options = pool.connect_options();
        assert!(options.to_url_lossy().as_str().contains("cart:new@db"), "{}", options.to_url_lossy());
        assert_eq!(options.get_application_name(), Some("totals"));
        std::fs::remove_file(&path).unwrap();
        assert!(args.renew_password(&pool).unwrap_err().to_string().contains("DATABASE_PASSWORD_FILE"));
    }

    #[test]
    fn an_invalid_url_is_an_error_without_the_url() {
        let error = DatabaseArgs::at("postgres://cart:hunter2@db example/cart").options().unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
        assert_eq!(error.to_string(), "reading --database-url failed");
    }

    #[test]
    fn the_advice_names_what_to_change() {
        let of = |text: &str| advice(&sqlx::Error::Tls(text.into()));
        assert!(of("invalid peer certificate: UnknownIssuer").unwrap().contains("sslrootcert"));
        assert!(of("invalid peer certificate: Expired").unwrap().contains("renew"));
        assert!(of("invalid peer certificate: certificate not valid for name \"a\"").unwrap().contains("host"));
        assert_eq!(of("broken pipe"), None);
    }
}
