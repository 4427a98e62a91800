//! Requests as typed fields, each with the error code for a wrong value.
//!
//! Shapes are declared with `deserr`; this module gives its errors Meilisearch's codes. `Refused<Json, C>` words errors for
//! a JSON body, `Refused<Query, C>` for query parameters. The first error is returned, in the order of the keys as the
//! client sent them.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::ops::ControlFlow;

use deserr::errors::{JsonError, QueryParamError};
use deserr::{
    DeserializeError, Deserr, ErrorKind, IntoValue, MergeWithError, Value, ValueKind,
    ValuePointerRef, take_cf_content,
};

use crate::errors::{ApiError, Code, Coded, of};

/// How error messages name a place in a request.
pub(crate) trait Format {
    /// The message for an error at a place.
    fn sentence<V: IntoValue>(error: ErrorKind<V>, location: ValuePointerRef) -> String;
}

/// A JSON body: `.filter[0]`.
pub(crate) struct Json;

/// Query parameters: "in parameter `limit`".
pub(crate) struct Query;

impl Format for Json {
    fn sentence<V: IntoValue>(error: ErrorKind<V>, location: ValuePointerRef) -> String {
        take_cf_content(JsonError::error(None, error, location)).to_string()
    }
}

impl Format for Query {
    fn sentence<V: IntoValue>(error: ErrorKind<V>, location: ValuePointerRef) -> String {
        take_cf_content(QueryParamError::error(None, error, location)).to_string()
    }
}

/// A refused value: the message and the code. `C` is the code that was declared for the field.
pub(crate) struct Refused<F, C = of::BadRequest> {
    message: String,
    code: Code,
    place: PhantomData<(F, C)>,
}

/// A refused JSON body.
pub(crate) type InBody<C = of::BadRequest> = Refused<Json, C>;

/// A refused query parameter.
pub(crate) type InQuery<C = of::BadRequest> = Refused<Query, C>;

impl<F, C> Refused<F, C> {
    /// A refusal with another code than the field's.
    pub(crate) fn with(message: String, code: Code) -> Refused<F, C> {
        Refused {
            message,
            code,
            place: PhantomData,
        }
    }

    /// The same refusal for another field.
    pub(crate) fn recast<D>(self) -> Refused<F, D> {
        Refused::with(self.message, self.code)
    }
}

impl<F, C> From<Refused<F, C>> for ApiError {
    fn from(refused: Refused<F, C>) -> ApiError {
        ApiError::new(refused.code, refused.message)
    }
}

impl<F: Format, C: Coded> DeserializeError for Refused<F, C> {
    fn error<V: IntoValue>(
        _: Option<Self>,
        error: ErrorKind<V>,
        location: ValuePointerRef,
    ) -> ControlFlow<Self, Self> {
        ControlFlow::Break(Refused::with(F::sentence(error, location), C::CODE))
    }
}

impl<F, C, D> MergeWithError<Refused<F, D>> for Refused<F, C> {
    fn merge(_: Option<Self>, other: Refused<F, D>, _: ValuePointerRef) -> ControlFlow<Self, Self> {
        ControlFlow::Break(other.recast())
    }
}

impl<F, C> MergeWithError<Infallible> for Refused<F, C> {
    fn merge(_: Option<Self>, other: Infallible, _: ValuePointerRef) -> ControlFlow<Self, Self> {
        match other {}
    }
}

/// What is wrong with a value, as text. The field that holds the value adds the place and the code.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) String);

impl<F: Format, C: Coded> MergeWithError<Wrong> for Refused<F, C> {
    fn merge(_: Option<Self>, other: Wrong, location: ValuePointerRef) -> ControlFlow<Self, Self> {
        let error: ErrorKind<Infallible> = ErrorKind::Unexpected { msg: other.0 };
        ControlFlow::Break(Refused::with(F::sentence(error, location), C::CODE))
    }
}

/// A missing mandatory field, which has its own code.
pub(crate) fn missing<C: Coded>(field: &str, location: ValuePointerRef) -> InBody<C> {
    Refused::with(
        Json::sentence::<Infallible>(ErrorKind::MissingField { field }, location),
        C::CODE,
    )
}

/// Reads a JSON value as a request.
pub(crate) fn body<T>(value: serde_json::Value) -> Result<T, ApiError>
where
    T: Deserr<InBody>,
{
    deserr::deserialize::<T, _, InBody>(value).map_err(ApiError::from)
}

/// Reads a query string as a request.
pub(crate) fn query<T>(query: &str) -> Result<T, ApiError>
where
    T: Deserr<InQuery>,
{
    let pairs = form_urlencoded::parse(query.as_bytes()).map(|(key, value)| {
        (
            key.into_owned(),
            serde_json::Value::String(value.into_owned()),
        )
    });
    let value = serde_json::Value::Object(pairs.collect());
    deserr::deserialize::<T, _, InQuery>(value).map_err(ApiError::from)
}

/// A query parameter, which is text whatever its type.
#[derive(Debug, Default, Clone)]
pub(crate) struct Param<T>(pub(crate) T);

/// A type that can be read from the text of a query parameter.
pub(crate) trait FromText: Sized {
    /// Reads the value, or says what is wrong.
    fn from_text(text: &str) -> Result<Self, Wrong>;
}

impl<T, E> Deserr<E> for Param<T>
where
    T: FromText,
    E: DeserializeError + MergeWithError<Wrong>,
{
    fn deserialize_from_value<V: IntoValue>(
        value: Value<V>,
        location: ValuePointerRef,
    ) -> Result<Self, E> {
        let text = text_of::<V, E>(value, location)?;
        T::from_text(&text)
            .map(Param)
            .map_err(|wrong| take_cf_content(E::merge(None, wrong, location)))
    }
}

impl FromText for String {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        Ok(text.to_owned())
    }
}

impl FromText for bool {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|_| {
            Wrong(format!(
                "could not parse `{text}` as a boolean, expected either `true` or `false`"
            ))
        })
    }
}

impl FromText for usize {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|_| not_an_integer(text))
    }
}

impl FromText for u32 {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|_| not_an_integer(text))
    }
}

fn not_an_integer(text: &str) -> Wrong {
    Wrong(format!("could not parse `{text}` as a positive integer"))
}

impl FromText for f32 {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        text.parse()
            .map_err(|error| Wrong(format!("could not parse `{text}` as a number: {error}")))
    }
}

/// A list in a query parameter, separated by commas.
#[derive(Debug, Default, Clone)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

/// A list in a query parameter, in which `*` means no restriction.
#[derive(Debug, Clone)]
pub(crate) enum Choice<T> {
    /// No restriction.
    Any,
    /// One of these.
    Of(Vec<T>),
}

impl<T> Choice<T> {
    /// The list, if there is one.
    pub(crate) fn into_list(self) -> Option<Vec<T>> {
        match self {
            Choice::Any => None,
            Choice::Of(list) => Some(list),
        }
    }
}

/// Reads the items of a list. If there are several, an error names the position of its item.
fn items<T, E>(text: &str, location: ValuePointerRef) -> Result<Vec<T>, E>
where
    T: FromText,
    E: MergeWithError<Wrong>,
{
    let several = text.contains(',');
    let read = |(index, item): (usize, &str)| {
        T::from_text(item).map_err(|wrong| {
            let location = if several {
                location.push_index(index)
            } else {
                location
            };
            take_cf_content(E::merge(None, wrong, location))
        })
    };
    text.split(',')
        .enumerate()
        .filter(|(_, item)| !item.is_empty())
        .map(read)
        .collect()
}

fn text_of<V: IntoValue, E: DeserializeError>(
    value: Value<V>,
    location: ValuePointerRef,
) -> Result<String, E> {
    match value {
        Value::String(text) => Ok(text),
        actual => {
            let error = ErrorKind::IncorrectValueKind {
                actual,
                accepted: &[ValueKind::String],
            };
            Err(take_cf_content(E::error(None, error, location)))
        }
    }
}

impl<T, E> Deserr<E> for List<T>
where
    T: FromText,
    E: DeserializeError + MergeWithError<Wrong>,
{
    fn deserialize_from_value<V: IntoValue>(
        value: Value<V>,
        location: ValuePointerRef,
    ) -> Result<Self, E> {
        items(&text_of::<V, E>(value, location)?, location).map(List)
    }
}

impl<T, E> Deserr<E> for Choice<T>
where
    T: FromText,
    E: DeserializeError + MergeWithError<Wrong>,
{
    fn deserialize_from_value<V: IntoValue>(
        value: Value<V>,
        location: ValuePointerRef,
    ) -> Result<Self, E> {
        let text = text_of::<V, E>(value, location)?;
        if text.split(',').any(|item| item == "*") {
            return Ok(Choice::Any);
        }
        items(&text, location).map(Choice::Of)
    }
}
