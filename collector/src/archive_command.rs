//! `sekimori-collector archive`: where from, and where to.

use std::path::PathBuf;
use std::process::ExitCode;

use sekimori_collector::archive::{Archive, ArchiveError, BucketConfig, BucketError, To};
use sekimori_collector::config::STORE;
use sekimori_collector::desk::Phase;
use sekimori_collector::question::of_command;

use crate::{EXIT_FAILED, note_part};

/// What begins the name of a bucket.
const BUCKET: &str = "s3://";

/// Its options.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Directory that `init` made.
    #[arg(long, required_unless_present = "store")]
    dir: Option<PathBuf>,
    /// The store's directory [default: store in DIR].
    #[arg(long, value_name = "PATH")]
    store: Option<PathBuf>,
    /// The archive's directory; it is made unless it is there. Or a bucket, which must be there.
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX")]
    to: PathBuf,
    /// Where the bucket is: https://HOST:PORT, or http:// and an address of this machine [default:
    /// Amazon's].
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    /// The bucket's region [default: us-east-1].
    #[arg(long, value_name = "REGION")]
    s3_region: Option<String>,
    /// Lines access_key_id: ID and secret_access_key: KEY; nobody else may read the file [default:
    /// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY].
    #[arg(long, value_name = "FILE")]
    s3_credentials: Option<PathBuf>,
    /// Only files that were begun before this day (UTC), as 2026-12-31.
    #[arg(long, value_name = "DATE")]
    before: Option<jiff::civil::Date>,
}

impl Arguments {
    /// In words, for the record of it.
    fn question(&self) -> String {
        of_command(
            None,
            &[
                ("--to", Some(self.to.display().to_string())),
                ("--s3-endpoint", self.s3_endpoint.clone()),
                ("--before", self.before.map(|it| it.to_string())),
            ],
        )
    }

    fn archive(self) -> Result<Archive, BucketError> {
        let Arguments { dir, store, to, s3_endpoint, s3_region, s3_credentials, before } = self;
        let store = store.or(dir.map(|dir| dir.join(STORE))).unwrap_or_default();
        let place = to.to_str().and_then(|it| it.strip_prefix(BUCKET)).map(str::to_owned);
        let for_bucket = s3_endpoint.is_some() || s3_region.is_some() || s3_credentials.is_some();
        let to = match place {
            Some(place) => To::Bucket(BucketConfig {
                place,
                endpoint: s3_endpoint,
                region: s3_region,
                credentials: s3_credentials,
            }),
            None if for_bucket => {
                let why = "it is a directory; the --s3 options are for s3://BUCKET/PREFIX";
                return Err(BucketError::Option { option: "--to", why: why.to_owned() });
            }
            None => To::Directory(to),
        };
        Ok(Archive { store, to, before })
    }
}

/// Writes the archive and says what became of it.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (dir, question) = (arguments.dir.clone(), arguments.question());
    let archive = arguments.archive().map_err(ArchiveError::from)?;
    let note = |phase, answered| match &dir {
        Some(dir) => note_part(dir, "Archive", question.clone(), (phase, answered)),
        None => Ok(()),
    };
    if dir.is_none() {
        eprintln!("note: without --dir no collector records that this archive is made");
    }
    note(Phase::Begin, 0).map_err(|error| {
        let text = format!(
            "{error}; no record can be made of the archive, so it is not begun. --store PATH \
             archives a store without its collector"
        );
        anyhow::Error::new(error).context(text)
    })?;
    let result = archive.run(&mut |text| eprintln!("{text}"));
    // What was written before it failed is not known; that it began is.
    if let Err(error) = note(Phase::End, result.as_ref().map_or(0, |outcome| outcome.rows)) {
        eprintln!("sekimori-collector: that the archive has ended is not recorded: {error}");
    }
    let outcome = result?;
    println!(
        "{} files written with {} events and {} bytes, {} were there",
        outcome.written, outcome.rows, outcome.bytes, outcome.there
    );
    if outcome.damaged == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "sekimori-collector: {} parts of the store could not be read; the rest is in the archive",
        outcome.damaged
    );
    Ok(ExitCode::from(EXIT_FAILED))
}

/// The caller named something that cannot be.
pub fn is_usage(error: &ArchiveError) -> bool {
    use BucketError::{Credentials, Missing, Option};

    matches!(
        error,
        ArchiveError::InStore(_)
            | ArchiveError::Other { .. }
            | ArchiveError::Bucket(Option { .. } | Credentials { .. } | Missing(_))
    )
}

/// The bucket's owner does not want.
pub fn is_permission_denied(error: &ArchiveError) -> bool {
    matches!(error, ArchiveError::Bucket(BucketError::Refused { .. }))
}
