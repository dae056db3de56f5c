//! What to do about a server's certificate that was rejected.

/// OpenSSL's codes of verification errors (openssl/x509_vfy.h), as X509_verify_cert_error_string(3) explains them.
mod code {
    pub(super) const NO_ISSUER: i32 = 2;
    pub(super) const NOT_YET_VALID: i32 = 9;
    pub(super) const EXPIRED: i32 = 10;
    pub(super) const SELF_SIGNED: [i32; 2] = [18, 19];
    pub(super) const NO_LOCAL_ISSUER: [i32; 2] = [20, 21];
    pub(super) const NAME_MISMATCH: i32 = 62;
    pub(super) const ADDRESS_MISMATCH: i32 = 64;
}

/// What to do about a verification error of OpenSSL, by its code. `ca_option` names the authorities that are trusted, and
/// `name_advice` says what helps when the certificate is for another host.
#[must_use]
pub fn certificate_advice(code: i32, ca_option: &str, name_advice: &str) -> String {
    match code {
        code::EXPIRED => String::from("renew the server's certificate"),
        code::NOT_YET_VALID => String::from("check the clocks of this host and of the server"),
        code::NAME_MISMATCH | code::ADDRESS_MISMATCH => name_advice.to_owned(),
        code if code == code::NO_ISSUER
            || code::SELF_SIGNED.contains(&code)
            || code::NO_LOCAL_ISSUER.contains(&code) =>
        {
            format!("no trusted authority has signed it: give its authority's certificate with {ca_option}")
        }
        _ => format!("check the server's certificate, and {ca_option}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_names_what_to_change() {
        for (code, advice) in [
            (10, "renew the server's certificate"),
            (18, "no trusted authority has signed it: give its authority's certificate with --ca"),
            (20, "no trusted authority has signed it: give its authority's certificate with --ca"),
            (62, "rename it"),
            (64, "rename it"),
            (23, "check the server's certificate, and --ca"),
        ] {
            assert_eq!(certificate_advice(code, "--ca", "rename it"), advice, "{code}");
        }
    }
}
