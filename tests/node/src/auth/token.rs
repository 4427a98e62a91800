//! Tenant tokens: JSON Web Tokens signed with an API key's value, valid for searches only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::{Sha256, Sha384, Sha512};
use uuid::Uuid;

use super::rules::TenantRules;

/// The three parts of a well-formed token. Its signature isn't checked yet.
pub(crate) struct Token<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: String,
    /// The token's payload.
    pub(crate) claims: Claims,
}

/// The payload of a token.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Claims {
    /// Indexes and filters.
    pub(crate) search_rules: TenantRules,
    /// When it expires, in seconds since 1970.
    pub(crate) exp: Option<i64>,
    /// The key that it was signed with.
    pub(crate) api_key_uid: Uuid,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

impl<'a> Token<'a> {
    /// Reads a token; `None` if the text isn't one.
    pub(crate) fn read(text: &'a str) -> Option<Token<'a>> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Token {
            signed,
            signature,
            algorithm: header.alg,
            claims,
        })
    }

    /// True if the token was signed with this key's value.
    pub(crate) fn is_signed_with(&self, key: &str) -> bool {
        fn fits<M: Mac + KeyInit>(key: &str, signed: &str, signature: &[u8]) -> bool {
            let Ok(mut mac) = <M as KeyInit>::new_from_slice(key.as_bytes()) else {
                return false;
            };
            mac.update(signed.as_bytes());
            mac.verify_slice(signature).is_ok()
        }
        match self.algorithm.as_str() {
            "HS256" => fits::<Hmac<Sha256>>(key, self.signed, &self.signature),
            "HS384" => fits::<Hmac<Sha384>>(key, self.signed, &self.signature),
            "HS512" => fits::<Hmac<Sha512>>(key, self.signed, &self.signature),
            _ => false,
        }
    }
}
