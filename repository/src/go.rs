//! Writes text the way Go does, because restic's tree ids are hashes of Go's output.
//!
//! Two rules: names inside trees go through `strconv.Quote`, and `encoding/json` escapes three characters of HTML and
//! two line separators that other encoders leave alone.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

/// JSON as `encoding/json` writes it.
pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut json = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, GoFormatter(CompactFormatter)))?;
    Ok(json)
}

struct GoFormatter(CompactFormatter);

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, found) in fragment.match_indices(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            self.0.write_string_fragment(writer, &fragment[plain..at])?;
            let code = found.chars().next().map_or(0, u32::from);
            write!(writer, "\\u{code:04x}")?;
            plain = at + found.len();
        }
        self.0.write_string_fragment(writer, &fragment[plain..])
    }
}

/// `strconv.Quote` without the quotes around it.
pub(crate) fn quote(name: &OsStr) -> String {
    let mut quoted = String::with_capacity(name.len());
    for chunk in name.as_bytes().utf8_chunks() {
        chunk.valid().chars().for_each(|c| quote_char(&mut quoted, c));
        for byte in chunk.invalid() {
            push(&mut quoted, format_args!("\\x{byte:02x}"));
        }
    }
    quoted
}

fn quote_char(quoted: &mut String, c: char) {
    let code = u32::from(c);
    match c {
        '"' | '\\' => quoted.extend(['\\', c]),
        '\x07' => quoted.push_str("\\a"),
        '\x08' => quoted.push_str("\\b"),
        '\x0c' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\x0b' => quoted.push_str("\\v"),
        c if is_printable(c) => quoted.push(c),
        '\0'..=' ' | '\x7f' => push(quoted, format_args!("\\x{code:02x}")),
        '\0'..='\u{ffff}' => push(quoted, format_args!("\\u{code:04x}")),
        _ => push(quoted, format_args!("\\U{code:08x}")),
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // writing to a String cannot fail
    let _ = text.write_fmt(arguments);
}

/// Go's `unicode.IsPrint`. The standard library decides the same, but tells only by how it escapes; a letter goes
/// before, since it also escapes a combining mark at the start of a text.
fn is_printable(c: char) -> bool {
    c == '\'' || ['a', c].iter().collect::<String>().escape_debug().count() == 2
}

/// The reverse of [`quote`]; `None` if `text` is nothing that it writes.
pub(crate) fn unquote(text: &str) -> Option<OsString> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' | '\n' => return None,
            '\\' => unquote_escape(&mut rest, &mut bytes)?,
            c => push_char(&mut bytes, c),
        }
    }
    Some(OsString::from_vec(bytes))
}

fn unquote_escape(rest: &mut std::str::Chars<'_>, bytes: &mut Vec<u8>) -> Option<()> {
    let plain = match rest.next()? {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => u8::try_from(digits(rest, 2)?).ok()?,
        'u' => return char::from_u32(digits(rest, 4)?).map(|c| push_char(bytes, c)),
        'U' => return char::from_u32(digits(rest, 8)?).map(|c| push_char(bytes, c)),
        _ => return None,
    };
    bytes.push(plain);
    Some(())
}

fn digits(rest: &mut std::str::Chars<'_>, count: u32) -> Option<u32> {
    (0..count).try_fold(0u32, |value, _| Some(value << 4 | rest.next()?.to_digit(16)?))
}

fn push_char(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_go_does_and_read_back() {
        let cases: [(&[u8], &str); 10] = [
            (b"web.jsonl", "web.jsonl"),
            (b"it's \"x\" \\", r#"it's \"x\" \\"#),
            (b"\x07\x08\x0c\n\r\t\x0b\x00\x1f\x7f", r"\a\b\f\n\r\t\v\x00\x1f\x7f"),
            ("käse 日本 😀".as_bytes(), "käse 日本 😀"),
            ("e\u{301}".as_bytes(), "e\u{301}"),
            ("\u{301}".as_bytes(), "\u{301}"),
            ("\u{a0}\u{200b}\u{85}".as_bytes(), r"\u00a0\u200b\u0085"),
            ("\u{e0001}".as_bytes(), r"\U000e0001"),
            (b"\xff\xfea", r"\xff\xfea"),
            (b"", ""),
        ];
        for (name, quoted) in cases {
            let name = OsStr::from_bytes(name);
            assert_eq!(quote(name), quoted);
            assert_eq!(unquote(quoted).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_quote_never_writes_is_refused() {
        for text in ["\"", "\\", "\\q", "\\x1", "\\xgg", "\\ud800", "\n"] {
            assert_eq!(unquote(text), None, "{text:?}");
        }
    }

    #[test]
    fn json_escapes_what_go_escapes() {
        assert_eq!(to_json(&"<a&b>\u{2028}\u{2029}\\").unwrap(), br#""\u003ca\u0026b\u003e\u2028\u2029\\""#);
    }
}
