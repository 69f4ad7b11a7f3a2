//! What one line says.

use super::access::{self, Entry};
use super::item;
use super::options::{Format, Options, is_asset};
use super::reason::Reason;
use crate::domain::{EventName, Hour};

/// What is counted of a line, or why nothing is.
pub(super) type Read = Result<(EventName, Hour, u64), item::Flaw>;

/// `now`: in seconds since 1970.
pub(super) fn read(line: &[u8], options: &Options, now: i64) -> Read {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    if line.is_empty() {
        return Err((Reason::Blank, None));
    }
    let is_json = match options.format {
        Format::Auto => matches!(line[0], b'{' | b'"'),
        format => format == Format::Json,
    };
    let mut name = options.prefix.clone();
    let (hour, count) = if is_json {
        let (event, hour, count) = item::parse(line, now)?;
        if event.is_empty() {
            return Err((Reason::EmptyName, None));
        }
        name.push_str(&event);
        (hour, count)
    } else {
        let whole = options.format == Format::Combined;
        (of_request(access::parse(line, whole, now), options, &mut name).map_err(|reason| (reason, None))?, 1)
    };
    let event = EventName::parse(&name).map_err(|error| (error.into(), None))?;
    Ok((event, hour, count))
}

fn of_request(entry: Result<Entry<'_>, Reason>, options: &Options, name: &mut String) -> Result<Hour, Reason> {
    let Entry { hour, method, path, status } = entry?;
    if !options.methods.has(&method) {
        return Err(Reason::Method);
    }
    if !options.statuses.has(status) {
        return Err(Reason::Status);
    }
    if !options.assets && path.as_deref().is_ok_and(is_asset) {
        return Err(Reason::Asset);
    }
    let path = match path {
        Ok(path) => path,
        Err(error) if options.event.has_path() => return Err(error.into()),
        Err(_) => String::new(),
    };
    options.event.fill(name, &path, &method, status);
    Ok(hour)
}
