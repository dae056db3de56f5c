//! How clients prove who they are to the brokers, and the brokers to them: options, and librdkafka's settings that follow.

use std::fs::File;
use std::path::{Path, PathBuf};

use service::Secret;

use crate::error::error_text;
use crate::token::TokenFile;

/// How the brokers are secured.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KafkaSecurityArgs {
    /// Encryption and authentication of the connections to Kafka
    #[arg(long, env, help_heading = "Secured servers", value_enum, default_value_t)]
    pub kafka_security: Security,

    /// How the user proves who it is, with --kafka-security sasl-ssl or sasl-plaintext
    #[arg(long, env, help_heading = "Secured servers", value_enum, default_value_t)]
    pub kafka_sasl_mechanism: SaslMechanism,

    /// Kafka user, for every mechanism but oauthbearer
    #[arg(long, env, help_heading = "Secured servers")]
    pub kafka_user: Option<String>,

    /// File with the password of the Kafka user; without it the variable KAFKA_PASSWORD has the password
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub kafka_password_file: Option<PathBuf>,

    /// The password, from the environment alone.
    #[arg(skip = Secret::from_env(PASSWORD))]
    pub kafka_password: Option<Secret>,

    /// File with the token of the mechanism oauthbearer (a JWT). It is read again before the token expires
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub kafka_token_file: Option<PathBuf>,

    /// Certificates (PEM) of the authorities that the brokers' certificates are signed by; by default the system's
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub kafka_ca_cert: Option<PathBuf>,

    /// Client certificate (PEM) for brokers that require one, followed by its intermediate certificates
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub kafka_client_cert: Option<PathBuf>,

    /// Private key (PEM) of the client certificate
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub kafka_client_key: Option<PathBuf>,
}

/// The variable with the password, and the name of its file with `_FILE`.
const PASSWORD: &str = "KAFKA_PASSWORD";

/// Encryption and authentication of the connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Security {
    /// No encryption, no authentication
    #[default]
    Plaintext,
    /// TLS; with a client certificate the brokers know the client by it
    Ssl,
    /// Authentication of the user without encryption: for a network that encrypts
    SaslPlaintext,
    /// TLS, and authentication of the user
    SaslSsl,
}

impl Security {
    fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    fn has_user(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// How a user proves who it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SaslMechanism {
    /// The password itself is sent
    Plain,
    /// Challenge and response with SHA-256
    #[value(name = "scram-sha-256")]
    ScramSha256,
    /// Challenge and response with SHA-512
    #[default]
    #[value(name = "scram-sha-512")]
    ScramSha512,
    /// A token that an identity provider has issued
    #[value(name = "oauthbearer")]
    OAuthBearer,
}

impl KafkaSecurityArgs {
    /// The token's file, where there is one.
    pub(crate) fn token(&self) -> TokenFile {
        let is_used = self.kafka_security.has_user() && self.kafka_sasl_mechanism == SaslMechanism::OAuthBearer;
        TokenFile::new(self.kafka_token_file.clone().filter(|_| is_used))
    }

    /// librdkafka's settings. Files are read each time, so a new client has a new password.
    ///
    /// # Errors
    /// Names the option that is missing, that has no effect, or whose file can't be read.
    pub(crate) fn settings(&self) -> Result<Vec<(&'static str, String)>, String> {
        let security = self.kafka_security;
        let protocol = match security {
            Security::Plaintext => "PLAINTEXT",
            Security::Ssl => "SSL",
            Security::SaslPlaintext => "SASL_PLAINTEXT",
            Security::SaslSsl => "SASL_SSL",
        };
        let mut settings = vec![("security.protocol", protocol.to_owned())];
        self.check_effect()?;
        if security.has_tls() {
            for (name, option, file) in [
                ("ssl.ca.location", "--kafka-ca-cert", &self.kafka_ca_cert),
                ("ssl.certificate.location", "--kafka-client-cert", &self.kafka_client_cert),
                ("ssl.key.location", "--kafka-client-key", &self.kafka_client_key),
            ] {
                let Some(path) = file else { continue };
                File::open(path).map_err(|error| format!("reading {} ({option}): {error}", path.display()))?;
                settings.push((name, text(path, option)?));
            }
        }
        if security.has_user() {
            self.add_user(&mut settings)?;
        }
        Ok(settings)
    }

    fn add_user(&self, settings: &mut Vec<(&'static str, String)>) -> Result<(), String> {
        let mechanism = match self.kafka_sasl_mechanism {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            SaslMechanism::OAuthBearer => {
                self.kafka_token_file.as_ref().ok_or("--kafka-sasl-mechanism oauthbearer needs --kafka-token-file")?;
                settings.push(("sasl.mechanism", String::from("OAUTHBEARER")));
                return Ok(());
            }
        };
        let needs = |option: &str| format!("--kafka-security {} needs {option}", name_of(self.kafka_security));
        let user = self.kafka_user.clone().filter(|user| !user.is_empty()).ok_or_else(|| needs("--kafka-user"))?;
        let password = Secret::of(PASSWORD, self.kafka_password.as_ref(), self.kafka_password_file.as_deref())
            .map_err(|error| error_text(&error))?
            .ok_or_else(|| needs("--kafka-password-file, or KAFKA_PASSWORD in the environment"))?;
        settings.push(("sasl.mechanism", mechanism.to_owned()));
        settings.push(("sasl.username", user));
        settings.push(("sasl.password", password.expose().to_owned()));
        Ok(())
    }

    /// Rejects options that would have no effect: somebody relies on them.
    fn check_effect(&self) -> Result<(), String> {
        let security = self.kafka_security;
        for (option, is_given) in [
            ("--kafka-ca-cert", self.kafka_ca_cert.is_some()),
            ("--kafka-client-cert", self.kafka_client_cert.is_some()),
            ("--kafka-client-key", self.kafka_client_key.is_some()),
        ] {
            if is_given && !security.has_tls() {
                return Err(format!("{option} needs --kafka-security ssl or sasl-ssl"));
            }
        }
        if self.kafka_client_cert.is_some() != self.kafka_client_key.is_some() {
            return Err(String::from("--kafka-client-cert and --kafka-client-key need each other"));
        }
        let is_token = self.kafka_sasl_mechanism == SaslMechanism::OAuthBearer;
        let user = self.kafka_user.as_ref().is_some_and(|user| !user.is_empty());
        for (option, is_given, is_used) in [
            ("--kafka-user", user, !is_token),
            ("--kafka-password-file", self.kafka_password_file.is_some(), !is_token),
            ("KAFKA_PASSWORD in the environment", self.kafka_password.is_some(), !is_token),
            ("--kafka-token-file", self.kafka_token_file.is_some(), is_token),
        ] {
            if is_given && !security.has_user() {
                return Err(format!("{option} needs --kafka-security sasl-ssl or sasl-plaintext"));
            }
            if is_given && !is_used {
                let mechanism = name_of(self.kafka_sasl_mechanism);
                return Err(format!("{option} has no effect with --kafka-sasl-mechanism {mechanism}"));
            }
        }
        Ok(())
    }
}

/// As on the command line.
fn name_of(value: impl clap::ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn text(path: &Path, option: &str) -> Result<String, String> {
    path.to_str().map(str::to_owned).ok_or_else(|| format!("the path of {option} is not UTF-8"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        security: KafkaSecurityArgs,
    }

    /// With a file that every path of the arguments names.
    fn settings(args: &[&str]) -> Result<Vec<(&'static str, String)>, String> {
        let (process, thread) = (std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(format!("cart-kafka-security-{process}-{thread:?}"));
        std::fs::write(&path, "pass,word=1\n").unwrap();
        let path = path.to_str().unwrap();
        let args = args.iter().map(|arg| if *arg == "FILE" { path } else { arg });
        let cli = Cli::try_parse_from(["test"].into_iter().chain(args)).map_err(|error| error.to_string())?;
        let settings = cli.security.settings()?;
        Ok(settings.into_iter().map(|(name, value)| (name, value.replace(path, "FILE"))).collect())
    }

    fn given(pairs: &[(&'static str, &str)]) -> Result<Vec<(&'static str, String)>, String> {
        Ok(pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    #[test]
    fn options_become_settings_of_librdkafka() {
        assert_eq!(settings(&[]), given(&[("security.protocol", "PLAINTEXT")]));
        let ca = ["--kafka-security", "ssl", "--kafka-ca-cert", "FILE"];
        assert_eq!(settings(&ca), given(&[("security.protocol", "SSL"), ("ssl.ca.location", "FILE")]));
        let client = ["--kafka-client-cert", "FILE", "--kafka-client-key", "FILE", "--kafka-security", "ssl"];
        assert_eq!(
            settings(&client),
            given(&[("security.protocol", "SSL"), ("ssl.certificate.location", "FILE"), ("ssl.key.location", "FILE"),])
        );
        for (security, mechanism, protocol, name) in [
            ("sasl-ssl", "plain", "SASL_SSL", "PLAIN"),
            ("sasl-ssl", "scram-sha-256", "SASL_SSL", "SCRAM-SHA-256"),
            ("sasl-plaintext", "scram-sha-512", "SASL_PLAINTEXT", "SCRAM-SHA-512"),
        ] {
            let args = ["--kafka-security", security, "--kafka-sasl-mechanism", mechanism, "--kafka-user", "cart"];
            let args = [&args[..], &["--kafka-password-file", "FILE"]].concat();
            let expected = [
                ("security.protocol", protocol),
                ("sasl.mechanism", name),
                ("sasl.username", "cart"),
                ("sasl.password", "pass,word=1"),
            ];
            assert_eq!(settings(&args), given(&expected));
        }
        let token = ["--kafka-security", "sasl-ssl", "--kafka-sasl-mechanism", "oauthbearer"];
        let token = [&token[..], &["--kafka-token-file", "FILE"]].concat();
        assert_eq!(settings(&token), given(&[("security.protocol", "SASL_SSL"), ("sasl.mechanism", "OAUTHBEARER")]));
    }

    #[test]
    fn a_missing_option_or_one_without_effect_is_named() {
        let file = |option| [option, "FILE"];
        for (args, error) in [
            (&["--kafka-user", "cart"][..], "--kafka-user needs --kafka-security sasl-ssl or sasl-plaintext"),
            (&file("--kafka-token-file"), "--kafka-token-file needs --kafka-security sasl-ssl or sasl-plaintext"),
            (&file("--kafka-password-file"), "--kafka-password-file needs --kafka-security sasl-ssl or sasl-plaintext"),
            (
                &["--kafka-security", "ssl", "--kafka-password-file", "FILE"],
                "--kafka-password-file needs --kafka-security sasl-ssl or sasl-plaintext",
            ),
            (
                &["--kafka-security", "sasl-ssl", "--kafka-token-file", "FILE"],
                "--kafka-token-file has no effect with --kafka-sasl-mechanism scram-sha-512",
            ),
            (&file("--kafka-ca-cert"), "--kafka-ca-cert needs --kafka-security ssl or sasl-ssl"),
            (&["--kafka-security", "sasl-ssl"], "--kafka-security sasl-ssl needs --kafka-user"),
            (
                &["--kafka-security", "sasl-ssl", "--kafka-user", "cart"],
                "--kafka-security sasl-ssl needs --kafka-password-file, or KAFKA_PASSWORD in the environment",
            ),
            (
                &["--kafka-security", "sasl-ssl", "--kafka-sasl-mechanism", "oauthbearer"],
                "--kafka-sasl-mechanism oauthbearer needs --kafka-token-file",
            ),
            (
                &["--kafka-security", "ssl", "--kafka-client-cert", "FILE"],
                "--kafka-client-cert and --kafka-client-key need each other",
            ),
            (
                &["--kafka-security", "ssl", "--kafka-ca-cert", "/nowhere/ca.pem"],
                "reading /nowhere/ca.pem (--kafka-ca-cert): No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(settings(args), Err(error.to_owned()), "{args:?}");
        }
        assert!(settings(&["--kafka-password", "hunter2"]).is_err(), "a password is no argument");
    }

    #[test]
    fn the_password_is_not_in_the_debug_output() {
        let args = KafkaSecurityArgs {
            kafka_security: Security::SaslSsl,
            kafka_user: Some(String::from("cart")),
            kafka_password: Some(String::from("hunter2").into()),
            ..KafkaSecurityArgs::default()
        };
        assert!(args.settings().unwrap().contains(&("sasl.password", String::from("hunter2"))));
        assert!(!format!("{args:?}").contains("hunter2"), "{args:?}");
        let plaintext = KafkaSecurityArgs { kafka_security: Security::Plaintext, kafka_user: None, ..args.clone() };
        assert_eq!(
            plaintext.settings().unwrap_err(),
            "KAFKA_PASSWORD in the environment needs --kafka-security sasl-ssl or sasl-plaintext"
        );
        let both = KafkaSecurityArgs { kafka_password_file: Some(PathBuf::from("/nowhere")), ..args };
        assert!(both.settings().unwrap_err().contains("KAFKA_PASSWORD and KAFKA_PASSWORD_FILE are both set"));
    }
}
