//! What is sent: the recipes.

use std::borrow::Cow;
use std::cell::RefCell;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::Url;
use crate::load::Target;
use crate::sample;

/// Leads of a batch of the recipe `batch`.
pub(crate) const BATCH: u64 = 500;
/// Leads of a batch among the requests of the recipe `mixed`.
const MIXED_BATCH: u64 = 20;
/// Created leads that are remembered for GET.
const REMEMBERED: usize = 4096;

/// Which requests, in what shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Recipe {
    /// POSTs of a lead each.
    Single,
    /// POSTs of 500 leads each, a line a lead.
    Batch,
    /// 90 % POSTs, 5 % batches of 20, 3 % GETs of a lead created before, 2 % lists of 50.
    Mixed,
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Post,
    Batch,
    Get,
    List,
}

impl Kind {
    /// As tables and plots say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Batch => "batch",
            Self::Get => "GET",
            Self::List => "list",
        }
    }
}

impl Recipe {
    /// As tables and plots say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Batch => "batch",
            Self::Mixed => "mixed",
        }
    }

    /// What the request with this number is. Numbers that follow each other are mixed well.
    fn kind(self, number: u64) -> Kind {
        match (self, sample::mix(number) % 100) {
            (Self::Batch, _) | (Self::Mixed, 90..=94) => Kind::Batch,
            (Self::Mixed, 95..=97) => Kind::Get,
            (Self::Mixed, 98..) => Kind::List,
            (Self::Single | Self::Mixed, _) => Kind::Post,
        }
    }

    fn batch(self) -> u64 {
        match self {
            Self::Single => 1,
            Self::Batch => BATCH,
            Self::Mixed => MIXED_BATCH,
        }
    }
}

/// The requests of a recipe, written beforehand.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) recipe: Recipe,
    pub(crate) url: Url,
    headers: Vec<(&'static str, String)>,
    posts: Target,
    batches: Target,
    list: Vec<u8>,
    created: RefCell<Vec<Uuid>>,
}

impl Requests {
    pub(crate) fn new(recipe: Recipe, url: &str, key: &str) -> Result<Self> {
        let posts = Target::leads(url, Some(key))?;
        let batches = Target::batches(url, Some(key), recipe.batch())?;
        let url = posts.url.clone();
        let headers = vec![("authorization", format!("Bearer {key}"))];
        let list = get(&url, &format!("{}?limit=50", url.path), &headers);
        Ok(Self { recipe, url, headers, posts, batches, list, created: RefCell::default() })
    }

    /// The request with this number. A GET is a POST for as long as nothing was created.
    pub(crate) fn of(&self, number: u64) -> (Kind, Cow<'_, [u8]>) {
        let one_of = |requests: &[Vec<u8>]| {
            usize::try_from(number % requests.len().max(1) as u64).unwrap_or(0)
        };
        match self.recipe.kind(number) {
            Kind::Batch => {
                let batches = &self.batches.requests;
                (Kind::Batch, Cow::Borrowed(&batches[one_of(batches)]))
            }
            Kind::List => (Kind::List, Cow::Borrowed(&self.list)),
            Kind::Get if !self.created.borrow().is_empty() => {
                let created = self.created.borrow();
                let nth = sample::mix(!number) % created.len() as u64;
                let id = created[usize::try_from(nth).unwrap_or(0)];
                let path = format!("{}/{id}", self.url.path);
                (Kind::Get, Cow::Owned(get(&self.url, &path, &self.headers)))
            }
            Kind::Post | Kind::Get => {
                let posts = &self.posts.requests;
                (Kind::Post, Cow::Borrowed(&posts[one_of(posts)]))
            }
        }
    }

    /// Leads that a request of this kind brings.
    pub(crate) fn leads(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Post => 1,
            Kind::Batch => self.recipe.batch(),
            Kind::Get | Kind::List => 0,
        }
    }

    /// Remembers a lead for later GETs, if the recipe has any.
    pub(crate) fn created(&self, number: u64, body: &[u8]) {
        if self.recipe != Recipe::Mixed {
            return;
        }
        let Some(id) = lead_id(body) else { return };
        let mut created = self.created.borrow_mut();
        if created.len() < REMEMBERED {
            created.push(id);
        } else {
            let place = sample::mix(number) % REMEMBERED as u64;
            created[usize::try_from(place).unwrap_or(0)] = id;
        }
    }
}

fn get(url: &Url, path: &str, headers: &[(&'static str, String)]) -> Vec<u8> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    url.request("GET", path, &headers, None)
}

/// The id in the answer to a POST: its first field, so that nothing else needs to be read.
pub(crate) fn lead_id(body: &[u8]) -> Option<Uuid> {
    const BEFORE: &[u8] = br#"{"data":{"id":""#;
    Uuid::try_parse_ascii(body.strip_prefix(BEFORE)?.get(..36)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://127.0.0.1:1/api/v1/leads";

    #[test]
    fn mixed_has_its_shares() {
        let mut count = [0; 4];
        for number in 0..100_000 {
            count[Recipe::Mixed.kind(number) as usize] += 1;
        }
        for (count, percent) in count.into_iter().zip([90, 5, 3, 2_i32]) {
            assert!((count - percent * 1_000).abs() < 500, "{count} of 100,000, not {percent} %");
        }
        assert!((0..1_000).all(|number| Recipe::Single.kind(number) == Kind::Post));
        assert!((0..1_000).all(|number| Recipe::Batch.kind(number) == Kind::Batch));
    }

    #[test]
    fn get_asks_for_what_was_created() {
        let requests = Requests::new(Recipe::Mixed, URL, "k").unwrap();
        let number = (0..1_000).find(|number| Recipe::Mixed.kind(*number) == Kind::Get).unwrap();
        assert_eq!(requests.of(number).0, Kind::Post, "nothing is there yet");
        let id = Uuid::from_u128(7);
        requests.created(1, format!(r#"{{"data":{{"id":"{id}","visitor_id":null}}}}"#).as_bytes());
        let (kind, request) = requests.of(number);
        let request = String::from_utf8(request.into_owned()).unwrap();
        assert_eq!(kind, Kind::Get);
        assert!(request.starts_with(&format!("GET /api/v1/leads/{id} HTTP/1.1\r\n")), "{request}");
        assert!(request.contains("authorization: Bearer k\r\n"), "{request}");
    }

    #[test]
    fn a_batch_has_as_many_lines_as_leads() {
        for (recipe, leads) in [(Recipe::Batch, 500), (Recipe::Mixed, 20)] {
            let requests = Requests::new(recipe, URL, "k").unwrap();
            let number = (0..1_000).find(|number| recipe.kind(*number) == Kind::Batch).unwrap();
            let (_, request) = requests.of(number);
            assert!(request.starts_with(b"POST /api/v1/leads/batch "));
            let lines = request.split(|byte| *byte == b'\n').count();
            let head = 7;
            assert_eq!((lines - head, requests.leads(Kind::Batch)), (leads - 1, leads as u64));
        }
    }

    #[test]
    fn reads_the_id_of_an_answer() {
        assert_eq!(lead_id(br#"{"data":{"id":"x"}}"#), None);
        assert_eq!(lead_id(b"{}"), None);
    }
}
