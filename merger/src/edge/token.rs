//! Tenant tokens: JSON Web Tokens that are signed with the value of an API key and allow searching only.
//!
//! Before it begins to work, the merger only checks whether a token may be valid. A node enforces what the token allows.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Sha256, Sha384, Sha512};

/// A well-formed token whose signature is not checked yet.
pub(super) struct Token<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: String,
    claims: Claims,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    api_key_uid: String,
    /// What the token allows: patterns of indexes, with filters or without.
    #[serde(default)]
    search_rules: Value,
    /// When the token expires, in seconds since 1970.
    exp: Option<i64>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

impl<'a> Token<'a> {
    /// Reads a token; `None` if the text isn't one.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        Some(Self {
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
            algorithm: header.alg,
            claims: serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?,
        })
    }

    /// The uid of the key that the token claims to be signed with.
    pub(super) fn key_uid(&self) -> &str {
        &self.claims.api_key_uid
    }

    /// What the token allows, by its own words.
    pub(super) fn rules(&self) -> &Value {
        &self.claims.search_rules
    }

    /// Whether the token is signed with a key of this value and has not expired at `now`, in seconds since 1970.
    pub(super) fn is_good(&self, value: &str, now: i64) -> bool {
        self.claims.exp.is_none_or(|exp| now <= exp) && self.is_signed_with(value)
    }

    fn is_signed_with(&self, value: &str) -> bool {
        fn fits<M: Mac + KeyInit>(value: &str, signed: &str, signature: &[u8]) -> bool {
            let Ok(mut mac) = <M as KeyInit>::new_from_slice(value.as_bytes()) else {
                return false;
            };
            mac.update(signed.as_bytes());
            mac.verify_slice(signature).is_ok()
        }
        match self.algorithm.as_str() {
            "HS256" => fits::<Hmac<Sha256>>(value, self.signed, &self.signature),
            "HS384" => fits::<Hmac<Sha384>>(value, self.signed, &self.signature),
            "HS512" => fits::<Hmac<Sha512>>(value, self.signed, &self.signature),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "the-value-of-a-key";

    fn token(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!(
            "{}.{}",
            part(r#"{"alg":"HS256","typ":"JWT"}"#),
            part(claims)
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(VALUE.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    #[test]
    fn a_token_is_good_with_its_key_until_its_end() {
        let text = token(r#"{"apiKeyUid":"7","searchRules":["*"],"exp":100}"#);
        let read = Token::read(&text).unwrap();
        assert_eq!(read.key_uid(), "7");
        assert!(read.is_good(VALUE, 100));
        assert!(!read.is_good(VALUE, 101));
        assert!(!read.is_good("another", 100));
        let endless = token(r#"{"apiKeyUid":"7","searchRules":["*"]}"#);
        assert!(Token::read(&endless).unwrap().is_good(VALUE, i64::MAX));
    }

    #[test]
    fn what_is_no_token_is_none() {
        let good = token(r#"{"apiKeyUid":"7","searchRules":["*"]}"#);
        for odd in ["", "a", "a.b", "a.b.c", &good[1..], &good.replace('.', "")] {
            assert!(Token::read(odd).is_none(), "{odd}");
        }
        let (signed, _) = good.rsplit_once('.').unwrap();
        let unsigned = format!("{signed}.");
        assert!(!Token::read(&unsigned).unwrap().is_good(VALUE, 0));
    }
}
