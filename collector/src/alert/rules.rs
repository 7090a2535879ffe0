//! `alerts.yaml`: which events are alerts, and whom they are told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sekimori_proto::v1::{Event, Field, Filter, Kind};
use sekimori_proto::words::Word as _;
use serde::Deserialize;
use thiserror::Error;

use super::deliver::{Egress, Endpoint, EndpointConfig, EndpointError, Severity};
use super::window::Limit;
use crate::expression::Expression;
use crate::limits::{
    ALERT_ENDPOINTS_MAX, ALERT_FILE_BYTES_MAX, ALERT_RULES_MAX, ALERT_STAGES_MAX, ALERT_WITHIN_MAX,
    EXPRESSION_BYTES_MAX, GROUP_FIELDS_MAX, NAME_BYTES_MAX, SENTENCE_BYTES_MAX,
};
use crate::store::{Condition, FilterError, value_of};

/// What the file says that it is.
const VERSION: &str = "sekimori/alerts/v1";

/// A file that cannot be used.
#[derive(Debug, Error)]
pub enum RulesError {
    /// It cannot be read.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is longer than the limit.
    #[error("more than {} KiB", ALERT_FILE_BYTES_MAX >> 10)]
    TooLong,
    /// Not of the form.
    #[error("{0}")]
    Form(String),
    /// A rule that cannot be.
    #[error("alert {name:?}: {why}")]
    Rule {
        /// Which.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// An endpoint that cannot be.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

/// Everything in the file.
#[derive(Debug, Default)]
pub struct Rules {
    /// What is looked for.
    pub rules: Vec<Rule>,
    /// Who is told.
    pub endpoints: Vec<Endpoint>,
}

/// One kind of alert.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, by which its place in the store is kept.
    pub name: String,
    /// For people.
    pub description: String,
    /// How bad it is.
    pub severity: Severity,
    /// What its alerts are told apart by.
    pub by: Vec<Field>,
    /// When it is one.
    pub what: What,
    /// Names of endpoints.
    pub to: Vec<String>,
    /// How long nothing has to happen for an alert to be over.
    pub quiet: Duration,
    /// After which time an alert that goes on is told again.
    pub remind: Duration,
    /// All the events that it looks at.
    pub condition: Arc<Condition>,
}

/// When events are an alert.
#[derive(Clone, Debug)]
pub enum What {
    /// Enough of them in some time; each in turn, in that order.
    Stages {
        /// One, or the parts of a sequence.
        stages: Vec<Stage>,
        /// In which time.
        within: Duration,
    },
    /// These values were together in no event for so long.
    FirstSeen {
        /// Of which fields.
        fields: Vec<Field>,
        /// How long.
        within: Duration,
    },
}

/// A part of a sequence.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Which events.
    pub filter: Expression,
    /// How much of them.
    pub limit: Limit,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: String,
    #[serde(default)]
    egress: Egress,
    #[serde(default)]
    deliver: Vec<EndpointConfig>,
    #[serde(default)]
    alerts: Vec<RuleForm>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleForm {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    severity: Severity,
    #[serde(default, rename = "where")]
    filter: Option<String>,
    #[serde(default)]
    count: Option<u64>,
    #[serde(default)]
    bytes: Option<Size>,
    #[serde(default)]
    sequence: Vec<StageForm>,
    #[serde(default)]
    first_seen: Vec<FieldForm>,
    #[serde(default)]
    within: Option<Time>,
    #[serde(default)]
    group_by: Option<Vec<FieldForm>>,
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    quiet: Option<Time>,
    #[serde(default)]
    remind: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StageForm {
    #[serde(rename = "where")]
    filter: String,
    #[serde(default)]
    count: Option<u64>,
    #[serde(default)]
    bytes: Option<Size>,
}

/// `10m`, `1h 30m`, `7d`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Time(Duration);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Time, String> {
        let span: jiff::Span = text.parse().map_err(|error: jiff::Error| error.to_string())?;
        let time = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
        let time = time.ok().and_then(|time| Duration::try_from(time).ok());
        time.filter(|time| (Duration::from_secs(1)..=ALERT_WITHIN_MAX).contains(time))
            .map(Time)
            .ok_or_else(|| format!("{text:?}: 1s to {}d", ALERT_WITHIN_MAX.as_secs() / 86_400))
    }
}

/// `5000000`, `500 MB`, `2 GiB`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SizeForm")]
struct Size(u64);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SizeForm {
    Number(u64),
    Text(String),
}

impl TryFrom<SizeForm> for Size {
    type Error = String;

    fn try_from(form: SizeForm) -> Result<Size, String> {
        const UNITS: [(&str, u64); 11] = [
            ("", 1),
            ("B", 1),
            ("kB", 1_000),
            ("KB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
        ];
        let text = match form {
            SizeForm::Number(bytes) => return Ok(Size(bytes)),
            SizeForm::Text(text) => text,
        };
        let digits = text.trim().trim_end_matches(|it: char| !it.is_ascii_digit());
        let unit = text.trim().strip_prefix(digits).unwrap_or_default().trim();
        let factor = UNITS.iter().find(|(known, _)| *known == unit).map(|(_, factor)| *factor);
        let bytes = digits.parse::<u64>().ok().zip(factor);
        bytes.and_then(|(count, factor)| count.checked_mul(factor)).map(Size).ok_or_else(|| {
            format!("{text:?}: bytes as a number, or with kB, MB, GB, TB, KiB, MiB, GiB or TiB")
        })
    }
}

/// A word of `--by`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct FieldForm(Field);

impl TryFrom<String> for FieldForm {
    type Error = String;

    fn try_from(word: String) -> Result<FieldForm, String> {
        Field::from_word(&word)
            .filter(|field| !matches!(field, Field::Hour | Field::Day))
            .map(FieldForm)
            .ok_or_else(|| {
                format!(
                    "{word:?} is no field: there are {}, without hour and day",
                    Field::all_words()
                )
            })
    }
}

impl Rules {
    /// Reads a file; what it refers to lies beside it.
    ///
    /// # Errors
    /// [`RulesError`] names the place.
    pub fn read(path: &Path) -> Result<Rules, RulesError> {
        let file = |source| RulesError::File { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(file)?.len();
        if length > ALERT_FILE_BYTES_MAX {
            return Err(RulesError::TooLong);
        }
        let text = std::fs::read_to_string(path).map_err(file)?;
        Rules::parse(&text, path.parent().unwrap_or(Path::new(".")))
    }

    /// Of the text of a file; `base` is where it lies.
    ///
    /// # Errors
    /// [`RulesError`] names the place.
    pub fn parse(text: &str, base: &Path) -> Result<Rules, RulesError> {
        let document: Document =
            serde_saphyr::from_str(text).map_err(|error| RulesError::Form(error.to_string()))?;
        let form = |why: String| Err(RulesError::Form(why));
        if document.version != VERSION {
            return form(format!("version: {:?}, expected {VERSION:?}", document.version));
        }
        if document.alerts.len() > ALERT_RULES_MAX || document.deliver.len() > ALERT_ENDPOINTS_MAX {
            return form(format!(
                "at most {ALERT_RULES_MAX} alerts and {ALERT_ENDPOINTS_MAX} endpoints"
            ));
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for config in &document.deliver {
            let endpoint = Endpoint::new(config, &document.egress, base)?;
            if endpoints.iter().any(|known| known.name() == endpoint.name()) {
                return form(format!("deliver: two are named {:?}", endpoint.name()));
            }
            endpoints.push(endpoint);
        }
        let names: BTreeSet<&str> = endpoints.iter().map(Endpoint::name).collect();
        let mut rules: Vec<Rule> = Vec::new();
        for form in document.alerts {
            let name = form.name.clone();
            let refused = |why: String| RulesError::Rule { name: name.clone(), why };
            if rules.iter().any(|known| known.name == name) {
                return Err(refused("the name is taken".to_owned()));
            }
            rules.push(rule(&form, &names).map_err(refused)?);
        }
        Ok(Rules { rules, endpoints })
    }
}

fn rule(form: &RuleForm, endpoints: &BTreeSet<&str>) -> Result<Rule, String> {
    let RuleForm { name, description, severity, filter, sequence, first_seen, within, .. } = form;
    let plain = |it: char| it.is_alphanumeric() || "-_.".contains(it);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
        return Err("a name has letters, digits, - _ and .".to_owned());
    }
    if description.len() > SENTENCE_BYTES_MAX {
        return Err(format!("description: at most {SENTENCE_BYTES_MAX} bytes"));
    }
    if let Some(unknown) = form.to.iter().find(|to| !endpoints.contains(to.as_str())) {
        return Err(format!("to: there is no {unknown:?} in `deliver`"));
    }
    let group_by = form.group_by.as_ref();
    let fields = |forms: &[FieldForm]| forms.iter().map(|field| field.0).collect::<Vec<_>>();
    let by = match group_by {
        Some(by) => fields(by),
        // Each new thing is an alert by itself.
        None => std::iter::once(Field::Host)
            .chain(fields(first_seen).into_iter().filter(|field| *field != Field::Host))
            .collect(),
    };
    if by.len() > GROUP_FIELDS_MAX {
        return Err(format!("group_by: at most {GROUP_FIELDS_MAX} fields"));
    }
    let limit = |count: Option<u64>, bytes: Option<Size>| match (count, bytes) {
        (Some(0), _) | (_, Some(Size(0))) => Err("count and bytes are at least 1".to_owned()),
        (Some(_), Some(_)) => Err("count or bytes, not both".to_owned()),
        (count, None) => Ok(Limit::Count(count.unwrap_or(1))),
        (None, Some(bytes)) => Ok(Limit::Bytes(bytes.0)),
    };
    let expression = |text: &str| Expression::new(text).map_err(|error| format!("where: {error}"));
    let what = match (filter, sequence.is_empty(), first_seen.is_empty()) {
        (Some(filter), true, true) => {
            let limit = limit(form.count, form.bytes)?;
            if limit != Limit::Count(1) && within.is_none() {
                return Err("within: in which time, as in `within: 10m`".to_owned());
            }
            let within = within.map_or(Duration::from_secs(1), |time| time.0);
            What::Stages { stages: vec![Stage { filter: expression(filter)?, limit }], within }
        }
        (Some(filter), true, false) => {
            expression(filter)?;
            if form.count.is_some() || form.bytes.is_some() {
                return Err("first_seen is without count and bytes".to_owned());
            }
            if first_seen.len() > GROUP_FIELDS_MAX {
                return Err(format!("first_seen: at most {GROUP_FIELDS_MAX} fields"));
            }
            let within = within.map_or(ALERT_WITHIN_MAX, |time| time.0);
            What::FirstSeen { fields: fields(first_seen), within }
        }
        (None, false, true) => {
            if form.count.is_some() || form.bytes.is_some() {
                return Err("count and bytes stand in the parts of a sequence".to_owned());
            }
            if !(2..=ALERT_STAGES_MAX).contains(&sequence.len()) {
                return Err(format!("sequence: 2 to {ALERT_STAGES_MAX} parts"));
            }
            let Some(within) = within else {
                return Err("within: in which time, as in `within: 10m`".to_owned());
            };
            let stage = |form: &StageForm| {
                let limit = limit(form.count, form.bytes)?;
                Ok(Stage { filter: expression(&form.filter)?, limit })
            };
            let stages = sequence.iter().map(stage).collect::<Result<_, String>>()?;
            What::Stages { stages, within: within.0 }
        }
        (None, true, _) => return Err("where: which events".to_owned()),
        _ => return Err("where, with or without first_seen, or sequence".to_owned()),
    };
    let (least, of_window) = (Duration::from_secs(600), what.within());
    let window = if matches!(what, What::Stages { .. }) { of_window } else { least };
    let condition = condition(&what, filter.as_deref()).map_err(|error| error.to_string())?;
    Ok(Rule {
        name: name.clone(),
        description: description.clone(),
        severity: *severity,
        by,
        condition,
        what,
        to: form.to.clone(),
        quiet: form.quiet.map_or(window.max(least), |time| time.0),
        remind: form.remind.map_or(Duration::from_secs(4 * 3600), |time| time.0),
    })
}

/// All the events that a rule looks at. One that it has no answer for does not hold up the others.
fn condition(what: &What, filter: Option<&str>) -> Result<Arc<Condition>, FilterError> {
    let texts: Vec<String> = match what {
        What::FirstSeen { .. } => vec![filter.unwrap_or_default().to_owned()],
        What::Stages { stages, .. } => {
            stages.iter().map(|stage| stage.filter.text().to_owned()).collect()
        }
    };
    let text = match texts.as_slice() {
        [one] => one.clone(),
        many => many.iter().map(|text| format!("({text})")).collect::<Vec<_>>().join(" || "),
    };
    // Together they may be longer than one may be: then each event is looked at.
    let expression = if text.len() > EXPRESSION_BYTES_MAX { String::new() } else { text };
    let condition = Condition::new(Some(&Filter { expression, ..Filter::default() }))?;
    Ok(Arc::new(condition.tolerant()))
}

impl What {
    /// How far it looks back.
    pub fn within(&self) -> Duration {
        match self {
            What::Stages { within, .. } | What::FirstSeen { within, .. } => *within,
        }
    }
}

impl Rule {
    /// What an event has in the fields that alerts are told apart by.
    pub fn group(&self, event: &Event) -> Vec<String> {
        self.by.iter().map(|field| value_of(*field, event)).collect()
    }

    /// Whether it is looked at: alerts raise none.
    pub fn looks_at(event: &Event) -> bool {
        event.kind() != Kind::Alert
    }
}
