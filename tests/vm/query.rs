//! Questions to the collector, with the words of `sekimori search`.

use anyhow::{Context as _, Result, bail};
use sekimori_proto::v1::query_service_client::QueryServiceClient;
use sekimori_proto::v1::{Event, Filter, Kind, SearchRequest, Verdict};
use sekimori_proto::words::Word;
use tonic::transport::Endpoint;

use crate::limits::{PAGE_BYTES_MAX, PROGRAM_TIMEOUT};

/// Events of one page; the collector's own limit.
const PAGE_EVENTS_MAX: usize = 1000;

/// One question.
#[derive(Debug, Default)]
pub struct Query {
    filter: Filter,
    /// At most this many events; all when there is none.
    limit: Option<usize>,
    newest_first: bool,
}

impl Query {
    /// From `--kind`, `--verdict`, `--text`, `--limit` and `--newest`. Without a kind it asks for all
    /// but `operator`: each question leaves such a record.
    ///
    /// # Errors
    /// When it is another word.
    pub fn parsed(words: &[&str]) -> Result<Self> {
        let mut query = Self::default();
        let mut words = words.iter();
        while let Some(name) = words.next() {
            if *name == "--newest" {
                query.newest_first = true;
                continue;
            }
            let value = *words.next().with_context(|| format!("{name} has no value"))?;
            match *name {
                "--kind" => query.filter.kinds.push(word::<Kind>(value)?.into()),
                "--verdict" => query.filter.verdicts.push(word::<Verdict>(value)?.into()),
                "--text" => query.filter.text = value.to_owned(),
                "--limit" => query.limit = Some(value.parse()?),
                _ => bail!("{name} is no filter of scenarios"),
            }
        }
        if query.filter.kinds.is_empty() {
            let others = Kind::WORDS.iter().filter(|(kind, _)| *kind != Kind::Operator);
            query.filter.kinds = others.map(|(kind, _)| (*kind).into()).collect();
        }
        Ok(query)
    }

    /// Only events from this time on, in nanoseconds since 1970.
    pub fn since(&mut self, ns: Option<i64>) {
        self.filter.since_ns = ns;
    }
}

fn word<T: Word>(text: &str) -> Result<T> {
    T::from_word(text).with_context(|| format!("{text} is none of {}", T::all_words()))
}

/// Asks the collector at `unix:PATH`.
///
/// # Errors
/// When it does not answer.
pub fn ask(address: &str, query: &Query) -> Result<Vec<Event>> {
    let path = address.strip_prefix("unix:").context("the collector is not at a unix socket")?;
    let endpoint = Endpoint::from_shared(format!("unix://{path}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = async { tokio::time::timeout(PROGRAM_TIMEOUT, pages(&endpoint, query)).await };
    runtime.block_on(answer).context("the collector does not answer")?
}

async fn pages(endpoint: &Endpoint, query: &Query) -> Result<Vec<Event>> {
    let channel = endpoint.connect().await?;
    let mut client = QueryServiceClient::new(channel).max_decoding_message_size(PAGE_BYTES_MAX);
    let mut events = Vec::new();
    let mut page = String::new();
    loop {
        let left = query.limit.map_or(PAGE_EVENTS_MAX, |limit| limit.saturating_sub(events.len()));
        let request = SearchRequest {
            filter: Some(query.filter.clone()),
            limit: u32::try_from(left.min(PAGE_EVENTS_MAX))?,
            page,
            newest_first: query.newest_first,
        };
        let answer = client.search(request).await?.into_inner();
        events.extend(answer.events);
        page = answer.next_page;
        if page.is_empty() || query.limit.is_some_and(|limit| events.len() >= limit) {
            return Ok(events);
        }
    }
}
