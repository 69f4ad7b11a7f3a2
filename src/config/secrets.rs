//! Passwords never reach a message, a log or a page.

/// `text` with the password of every URL form that PostgreSQL clients take replaced by `***`. Works
/// on text and not on a parsed URL, so that what is malformed is masked too, rather a bit too much.
pub(super) fn mask_passwords(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return mask_parameters(text);
    };
    // A password may hold any character when somebody forgot to escape it, so it ends at the last `@`.
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, rest),
    };
    let place = mask_parameters(place);
    match login.map(|login| login.split_once(':').map_or((login, false), |(user, _)| (user, true))) {
        Some((user, true)) => format!("{scheme}://{user}:***@{place}"),
        Some((user, false)) => format!("{scheme}://{user}@{place}"),
        None => format!("{scheme}://{place}"),
    }
}

/// `…?password=secret&x=y`, and also `password=secret x=y`.
fn mask_parameters(text: &str) -> String {
    let mut masked = text.to_owned();
    let mut from = 0;
    while let Some(found) = masked[from..].to_ascii_lowercase().find("password=") {
        let start = from + found + "password=".len();
        let end = masked[start..].find(['&', ' ']).map_or(masked.len(), |length| start + length);
        masked.replace_range(start..end, "***");
        from = start + "***".len();
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::mask_passwords;

    #[test]
    fn a_password_is_masked_in_every_form_of_url() {
        for (given, masked) in [
            ("postgres://u:secret@h/db", "postgres://u:***@h/db"),
            ("postgres://u:sec:r@et/@h:5432/db", "postgres://u:***@h:5432/db"),
            ("postgres://u:secret@h1:1,h2:2/db", "postgres://u:***@h1:1,h2:2/db"),
            ("postgres://u@h/db?password=secret&sslmode=require", "postgres://u@h/db?password=***&sslmode=require"),
            ("postgres://h/db?sslPassword=secret", "postgres://h/db?sslPassword=***"),
            ("host=h password=secret user=u", "host=h password=*** user=u"),
            ("mysql://u:secret@", "mysql://u:***@"),
        ] {
            assert_eq!(mask_passwords(given), masked);
        }
    }

    #[test]
    fn a_text_without_a_password_stays_as_it_is() {
        for text in ["", "data", "sqlite:a@b:c", "postgres://u@h/db", "postgres://h/db?sslmode=require", "127.0.0.1:80"]
        {
            assert_eq!(mask_passwords(text), text);
        }
    }
}
