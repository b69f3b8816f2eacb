//! The sections for web pages: which of them may use the service, and with what.

use super::check;
use super::read::{Fault, Section, Value, quoted};
use super::sections::{MOST_ENTRIES, texts};
use super::settings::{Cors, Origins};

/// The most names in `cors.headers`: each preflight carries all of them.
const MOST_HEADERS: usize = 64;

pub(super) fn cors(section: &Section<'_>) -> Result<Cors, Fault> {
    let default = Cors::default();
    let origins = match section.get("origins") {
        Some(value) => origins(&value)?,
        None => default.origins,
    };
    let credentials = section.flag("credentials", default.credentials)?;
    if credentials && let Some(value) = section.get("credentials") {
        match &origins {
            Origins::Any => {
                return Err(value.fault(
                    "needs a list in `cors.origins`: with `*` browsers refuse every answer to a \
                     request with credentials",
                ));
            }
            Origins::Only(list) if list.is_empty() => {
                return Err(value.fault("has no effect with `origins: []`"));
            }
            Origins::Only(_) => {}
        }
    }
    let headers = match section.get("headers") {
        Some(value) => headers(&value)?,
        None => default.headers,
    };
    Ok(Cors {
        origins,
        credentials,
        headers,
    })
}

fn origins(value: &Value<'_>) -> Result<Origins, Fault> {
    let items = value.list(MOST_ENTRIES)?;
    if let [only] = items.as_slice()
        && only.text()? == "*"
    {
        return Ok(Origins::Any);
    }
    Ok(Origins::Only(texts(value, check::origin)?))
}

/// Names of request headers, none of them twice in any spelling.
fn headers(value: &Value<'_>) -> Result<Vec<String>, Fault> {
    let mut headers: Vec<String> = Vec::new();
    for item in value.list(MOST_HEADERS)? {
        let name = item.text()?;
        check::request_header(name).map_err(|must| item.must(must))?;
        if headers.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(item.fault(format!("{} is listed twice", quoted(name))));
        }
        headers.push(name.to_owned());
    }
    Ok(headers)
}
