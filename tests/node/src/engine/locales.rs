//! Language codes as clients write them: ISO 639-1 or 639-3.

use deserr::{
    DeserializeError, Deserr, ErrorKind, IntoValue, Value, ValueKind, ValuePointerRef,
    take_cf_content,
};
use milli_core::tokenizer::Language;
use serde::{Deserialize, Serialize};

use crate::validate::{FromText, Wrong};

/// Each language by its two-letter and its three-letter code.
const LANGUAGES: [(&str, &str); 69] = [
    ("af", "afr"),
    ("ak", "aka"),
    ("am", "amh"),
    ("ar", "ara"),
    ("az", "aze"),
    ("be", "bel"),
    ("bn", "ben"),
    ("bg", "bul"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("eo", "epo"),
    ("et", "est"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("gu", "guj"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("hy", "hye"),
    ("id", "ind"),
    ("it", "ita"),
    ("jv", "jav"),
    ("ja", "jpn"),
    ("kn", "kan"),
    ("ka", "kat"),
    ("km", "khm"),
    ("ko", "kor"),
    ("la", "lat"),
    ("lv", "lav"),
    ("lt", "lit"),
    ("ml", "mal"),
    ("mr", "mar"),
    ("mk", "mkd"),
    ("my", "mya"),
    ("ne", "nep"),
    ("nl", "nld"),
    ("nb", "nob"),
    ("or", "ori"),
    ("pa", "pan"),
    ("fa", "pes"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("si", "sin"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sn", "sna"),
    ("es", "spa"),
    ("sr", "srp"),
    ("sv", "swe"),
    ("ta", "tam"),
    ("te", "tel"),
    ("tl", "tgl"),
    ("th", "tha"),
    ("tk", "tuk"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("ur", "urd"),
    ("uz", "uzb"),
    ("vi", "vie"),
    ("yi", "yid"),
    ("zh", "zho"),
    ("zu", "zul"),
];

/// One more code for Mandarin.
const MANDARIN: &str = "cmn";

/// A language that the engine knows, with the code that the client used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Locale(String);

impl Locale {
    fn parse(name: &str) -> Option<Locale> {
        let known = name == MANDARIN
            || LANGUAGES
                .iter()
                .any(|(two, three)| name == *two || name == *three);
        known.then(|| Locale(name.to_owned()))
    }

    /// The engine's name of the language.
    pub(crate) fn language(&self) -> Option<Language> {
        let three = LANGUAGES
            .iter()
            .find(|(two, _)| self.0 == *two)
            .map_or(self.0.as_str(), |(_, three)| three);
        Language::from_code(three)
    }

    /// The client's code for a language of the engine.
    pub(crate) fn of(language: Language) -> Locale {
        Locale(language.code().to_owned())
    }
}

fn names() -> Vec<&'static str> {
    let two = LANGUAGES.iter().map(|(two, _)| *two);
    let three = LANGUAGES.iter().map(|(_, three)| *three);
    two.chain(three).chain([MANDARIN]).collect()
}

impl<E: DeserializeError> Deserr<E> for Locale {
    fn deserialize_from_value<V: IntoValue>(
        value: Value<V>,
        location: ValuePointerRef,
    ) -> Result<Self, E> {
        match value {
            Value::String(name) => Locale::parse(&name).ok_or_else(|| {
                let error: ErrorKind<V> = ErrorKind::UnknownValue {
                    value: &name,
                    accepted: &names(),
                };
                take_cf_content(E::error(None, error, location))
            }),
            actual => {
                let error = ErrorKind::IncorrectValueKind {
                    actual,
                    accepted: &[ValueKind::String],
                };
                Err(take_cf_content(E::error(None, error, location)))
            }
        }
    }
}

impl FromText for Locale {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        Locale::parse(text).ok_or_else(|| {
            let mut names = names();
            names.sort_by_key(|name| (name.len(), *name));
            Wrong(format!(
                "Unsupported locale `{text}`, expected one of {}",
                names.join(", ")
            ))
        })
    }
}
