//! The pages of one list.
//!
//! The continue token carries the revision, so a list is one chain of requests; a page is fetched by a task of its own
//! while its predecessor is processed. An error leaves the place in the chain as it was: asking again goes on there.

use std::ops::Range;

use kube::core::params::ListParams;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::task::JoinSet;

use super::{ListMeta, Meta, Revision, exact, target};
use crate::{Error, request::Ask, retry::Retry};

/// Objects of the first page, before anything is known of their size.
const FIRST_LIMIT: u32 = 100;
/// No page has more objects: servers spend memory on each.
const MAX_LIMIT: u32 = 2500;
/// A page grows at most this much over the one before it, whose objects may have been small by chance.
const GROWTH: u32 = 8;
/// What a page aims at.
const TARGET_BYTES: usize = 2 << 20;
/// A longer page of several objects is given up and asked for again in smaller ones.
const LONG_PAGE_BYTES: usize = 32 << 20;
/// No page is longer, also of a server that ignores the limit.
pub(super) const MAX_PAGE_BYTES: usize = 256 << 20;

/// A list that is read page by page. Dropping it ends the request under way.
#[derive(Debug)]
pub struct Pages {
    source: Source,
    next: Next,
    /// The request for `next`, where it is under way; never more than one.
    ahead: JoinSet<Result<(Page, Next), Error>>,
}

/// What does not change from page to page.
#[derive(Clone)]
struct Source {
    client: kube::Client,
    what: String,
    path: String,
    revision: Revision,
    retry: Retry,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("what", &self.what).finish_non_exhaustive()
    }
}

/// Where the list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    First { limit: u32 },
    After { token: String, limit: u32 },
    End,
}

impl Pages {
    pub(super) fn new(client: kube::Client, what: String, path: String, revision: Revision, retry: Retry) -> Self {
        let source = Source { client, what, path, revision, retry };
        Self { source, next: Next::First { limit: FIRST_LIMIT }, ahead: JoinSet::new() }
    }

    /// The next page; none after the last. An empty list has one empty page.
    ///
    /// Cancel-safe: a page that was not returned is returned by the next call. After an error, the next call asks
    /// again for the page that failed; the end is only ever reached by reading every page.
    ///
    /// # Errors
    /// [`Error::Expired`] where the revision is gone, [`Error::OtherStore`] where the list is not of the revision, and
    /// whatever a request can come to.
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        if self.ahead.is_empty() {
            self.fetch_ahead();
        }
        let Some(fetched) = self.ahead.join_next().await else { return Ok(None) };
        let (page, next) = fetched.map_err(|source| self.source.ended(source))??;
        self.next = next;
        self.fetch_ahead();
        Ok(Some(page))
    }

    fn fetch_ahead(&mut self) {
        if self.next != Next::End {
            self.ahead.spawn(self.source.clone().fetch(self.next.clone()));
        }
    }
}

impl Source {
    async fn fetch(self, next: Next) -> Result<(Page, Next), Error> {
        let (params, mut limit) = match next {
            Next::First { limit } => (exact(self.revision), limit),
            Next::After { token, limit } => (ListParams::default().continue_token(&token), limit),
            Next::End => return Ok((Page::default(), Next::End)),
        };
        loop {
            let bound = if limit > 1 { LONG_PAGE_BYTES } else { MAX_PAGE_BYTES };
            let target = target(&self.what, &self.path, &params.clone().limit(limit))?;
            match Ask::get(self.what.as_str(), target, bound).send(&self.client, &self.retry).await {
                Err(Error::TooLarge { .. }) if limit > 1 => limit = (limit / GROWTH).max(1),
                body => return self.read(body?, limit).await,
            }
        }
    }

    async fn read(self, body: Vec<u8>, limit: u32) -> Result<(Page, Next), Error> {
        let what = self.what.clone();
        let (page, metadata) = tokio::task::spawn_blocking(move || Page::parse(what, body))
            .await
            .map_err(|source| self.ended(source))??;
        metadata.check(&self.what, self.revision)?;
        let next = match metadata.token() {
            None => Next::End,
            Some(token) => Next::After { token: token.to_owned(), limit: next_limit(limit, &page) },
        };
        Ok((page, next))
    }

    fn ended(&self, source: tokio::task::JoinError) -> Error {
        Error::Ended { what: self.what.clone(), source }
    }
}

/// As many objects as make a page of the size aimed at, if the next are as large as these.
fn next_limit(limit: u32, page: &Page) -> u32 {
    let fitting = TARGET_BYTES.saturating_mul(page.len()) / page.bytes().max(1);
    let fitting = u32::try_from(fitting).unwrap_or(MAX_LIMIT);
    fitting.min(limit.saturating_mul(GROWTH)).clamp(1, MAX_LIMIT)
}

/// One page: the text of the answer, and where in it the objects are.
#[derive(Debug, Default)]
pub struct Page {
    what: String,
    text: String,
    objects: Vec<Range<usize>>,
}

/// One object of a page.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    /// The object as it came, on one line: line breaks between tokens, which only foreign servers send, are spaces.
    pub raw: &'a str,
    /// What capturing decides by.
    pub meta: Meta<'a>,
    what: &'a str,
}

impl Page {
    fn parse(what: String, mut body: Vec<u8>) -> Result<(Self, ListMeta), Error> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(default)]
            metadata: ListMeta,
            #[serde(borrow)]
            items: Option<Vec<&'a RawValue>>,
        }
        // inside JSON strings line breaks are escaped, so that these can only be white space
        body.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        let invalid = |what, source| Error::Unreadable { what, source };
        let text = match String::from_utf8(body) {
            Ok(text) => text,
            Err(error) => return Err(invalid(what, serde::de::Error::custom(error))),
        };
        let document: Document<'_> = match serde_json::from_str(&text) {
            Ok(document) => document,
            Err(source) => return Err(invalid(what, source)),
        };
        let start = text.as_ptr().addr();
        let range = |raw: &&RawValue| {
            let at = raw.get().as_ptr().addr() - start;
            at..at + raw.get().len()
        };
        let objects = document.items.iter().flatten().map(range).collect();
        let metadata = document.metadata;
        Ok((Self { what, text, objects }, metadata))
    }

    /// How many objects it holds.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The size of the answer in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Its objects, in the server's order. Reading one fails where it is no object with a name.
    pub fn items(&self) -> impl Iterator<Item = Result<Item<'_>, Error>> {
        self.objects.iter().map(|range| {
            let raw = &self.text[range.clone()];
            let meta = Meta::parse(raw).map_err(|source| Error::Unreadable { what: self.what.clone(), source })?;
            Ok(Item { raw, meta, what: &self.what })
        })
    }
}

impl Item<'_> {
    /// The whole object.
    ///
    /// # Errors
    /// It cannot be held as JSON.
    pub fn value(&self) -> Result<Value, Error> {
        serde_json::from_str(self.raw).map_err(|source| Error::Unreadable { what: self.what.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<(Page, ListMeta), Error> {
        Page::parse("list pods.core".into(), body.as_bytes().to_vec())
    }

    #[test]
    fn objects_are_handed_on_as_the_bytes_that_came() {
        let first = r#"{"metadata":{"name":"a"},"spec":{"z":1.50,"a":"\u00fc\n","n":12345678901234567890123}}"#;
        let second = r#"{ "metadata" : {"name":"b"} }"#;
        let body = format!(
            r#"{{"kind":"L","metadata":{{"resourceVersion":"7","continue":"t"}},"items":[{first} , {second}]}}"#
        );
        let (page, metadata) = parse(&body).unwrap();
        let raw: Vec<_> = page.items().map(|item| item.unwrap().raw).collect();
        assert_eq!(raw, [first, second]);
        assert_eq!((page.len(), page.bytes(), metadata.token()), (2, body.len(), Some("t")));
    }

    #[test]
    fn an_object_is_always_one_line() {
        let (page, _) = parse("{\"items\":[{\n \"metadata\":\r\n {\"name\":\"a\\nb\"}\n}]}").unwrap();
        let item = page.items().next().unwrap().unwrap();
        assert!(!item.raw.contains(['\n', '\r']));
        assert_eq!(item.value().unwrap()["metadata"]["name"], "a\nb");
    }

    #[test]
    fn a_list_without_items_is_empty() {
        for body in [r#"{"metadata":{},"items":null}"#, r#"{"items":[]}"#, "{}"] {
            assert!(parse(body).unwrap().0.is_empty(), "{body}");
        }
    }

    #[test]
    fn what_is_no_list_is_an_error_that_names_it() {
        for body in [&b"<html>"[..], b"{\"items\":7}", b"{\"items\":[{]}", b"{\"a\":\"\xff\"}", b"", b"{"] {
            let error = Page::parse("list pods.core".into(), body.to_vec()).unwrap_err();
            assert!(matches!(&error, Error::Unreadable { what, .. } if what == "list pods.core"), "{error}");
        }
    }

    #[test]
    fn an_item_without_a_name_is_an_error_and_not_left_out() {
        let (page, _) = parse(r#"{"items":[{"metadata":{"name":"a"}},{"metadata":{}}]}"#).unwrap();
        let read: Vec<_> = page.items().map(|item| item.is_ok()).collect();
        assert_eq!(read, [true, false]);
    }

    #[test]
    fn a_list_of_another_revision_is_refused() {
        let check = |revision: &str| {
            let body = format!(r#"{{"metadata":{{"resourceVersion":"{revision}"}},"items":[]}}"#);
            parse(&body).unwrap().1.check("list", Revision(7))
        };
        assert!(check("7").is_ok());
        for revision in ["8", "07", "", "seven"] {
            assert!(matches!(check(revision), Err(Error::OtherStore { asked: 7, .. })), "{revision}");
        }
    }

    #[test]
    fn pages_grow_towards_their_size_in_bytes_and_shrink_at_once() {
        let page = |objects: usize, bytes: usize| Page {
            what: String::new(),
            text: " ".repeat(bytes),
            objects: vec![0..0; objects],
        };
        let kib = 1024;
        assert_eq!(next_limit(100, &page(100, 100 * kib)), 800, "no page grows by more than the factor");
        assert_eq!(next_limit(800, &page(800, 800 * kib)), 2048);
        assert_eq!(next_limit(2048, &page(2048, 200 * kib)), MAX_LIMIT);
        assert_eq!(next_limit(100, &page(100, 100 * kib * kib)), 2);
        assert_eq!(next_limit(1, &page(1, 3 * kib * kib)), 1);
        assert_eq!(next_limit(100, &page(0, 50)), 1);
    }
}
