//! Names of sources: what a login or slug can be, and what a number that stands in its place is.

use super::reader::clip;
use crate::core::source::PlatformName;

/// Returns why text with a leading `-` is not accepted: it is a negative number, or an option of the command line.
pub fn negative(text: &str) -> String {
    format!("`{}` begins with `-`, which no name or id does", clip(text))
}

/// Whether `text` is a number in scientific notation or with a fraction, as spreadsheets and YAML write large ids.
pub fn is_float(text: &str) -> bool {
    let begins = text.starts_with(|first: char| first.is_ascii_digit());
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let in_notation = |byte: u8| byte.is_ascii_digit() || b".eE+-".contains(&byte);
    begins && !is_plain && text.bytes().all(in_notation) && text.parse::<f64>().is_ok()
}

/// Returns why a float is not accepted as an id.
pub fn float_as_id(text: &str) -> String {
    format!(
        "`{}` is a floating-point number, which has lost digits of the id; write the whole id, in quotes where a file is \
         converted",
        clip(text)
    )
}

/// Checks a login or slug and converts it to lower case.
pub fn name(platform: PlatformName, given: &str) -> Result<String, String> {
    if is_float(given) {
        return Err(float_as_id(given));
    }
    if given.starts_with('-') {
        return Err(negative(given));
    }
    let name = given.trim_start_matches(['#', '@']).to_lowercase();
    let rules = platform.rules();
    let Some(names) = &rules.names else {
        return Err(format!(
            "`{}` is not a {}'s id; {} is configured by id",
            clip(given),
            rules.source,
            rules.title
        ));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || names.extra.contains(c);
    if name.is_empty() || name.len() > names.longest || !name.chars().all(plain) {
        return Err(format!("`{}` cannot be a name on {platform}", clip(given)));
    }
    Ok(name)
}
