//! How the schema registry is secured: options, and the credentials that follow.

use std::path::PathBuf;

use reqwest::Certificate;
use service::Secret;

use crate::error::error_text;

/// How the registry is secured. An https URL of the registry is what makes the connection encrypted.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RegistryArgs {
    /// User of the schema registry (HTTP basic authentication); for a hosted registry its API key
    #[arg(long, env, help_heading = "Secured servers")]
    pub registry_user: Option<String>,

    /// File with the password of the registry's user; without it the variable REGISTRY_PASSWORD has the password
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub registry_password_file: Option<PathBuf>,

    /// The password, from the environment alone.
    #[arg(skip = Secret::from_env(PASSWORD))]
    pub registry_password: Option<Secret>,

    /// File with the registry's bearer token, in place of user and password. It is read for each request
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub registry_token_file: Option<PathBuf>,

    /// Certificates (PEM) of the authorities that the registry's certificate may be signed by, in addition to the system's
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub registry_ca_cert: Option<PathBuf>,
}

/// The variables with the secrets, and the names of their files with `_FILE`.
const PASSWORD: &str = "REGISTRY_PASSWORD";
const TOKEN: &str = "REGISTRY_TOKEN";

/// What a request proves who it is with.
pub(crate) enum Credentials {
    Nothing,
    Basic(String, Secret),
    Bearer(Secret),
}

impl RegistryArgs {
    /// Reads the files, so a renewed secret is used from the next request on.
    pub(crate) fn credentials(&self) -> Result<Credentials, String> {
        let user = self.registry_user.clone().filter(|user| !user.is_empty());
        match (user, &self.registry_token_file) {
            (None, None) => Ok(Credentials::Nothing),
            (Some(_), Some(_)) => Err(String::from("give --registry-user or --registry-token-file, not both")),
            (None, Some(path)) => {
                Secret::read(TOKEN, path).map(Credentials::Bearer).map_err(|error| error_text(&error))
            }
            (Some(user), None) => {
                Secret::of(PASSWORD, self.registry_password.as_ref(), self.registry_password_file.as_deref())
                    .map_err(|error| error_text(&error))?
                    .map(|password| Credentials::Basic(user, password))
                    .ok_or_else(|| {
                        String::from(
                            "--registry-user needs --registry-password-file, or REGISTRY_PASSWORD in the environment",
                        )
                    })
            }
        }
    }

    /// The authorities of `--registry-ca-cert`.
    pub(crate) fn authorities(&self) -> Result<Vec<Certificate>, String> {
        let Some(path) = &self.registry_ca_cert else { return Ok(Vec::new()) };
        let failed =
            |reason: &dyn std::fmt::Display| format!("reading {} (--registry-ca-cert): {reason}", path.display());
        let pem = std::fs::read(path).map_err(|error| failed(&error))?;
        let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| failed(&error))?;
        if authorities.is_empty() {
            return Err(failed(&"it has no certificate"));
        }
        Ok(authorities)
    }
}
