//! Which bucket, where, and as whom.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey as Key, AwsCredential};
use object_store::path::Path as Prefix;
use object_store::{ClientOptions, HeaderValue, RetryConfig, StaticCredentialProvider};
use serde::Deserialize;
use url::{Host, Url};

use super::error::BucketError;
use crate::limits::{
    BUCKET_CREDENTIALS_BYTES_MAX, BUCKET_RETRIES_MAX, BUCKET_RETRY_TIME_MAX, BUCKET_TIME_MAX,
};

const TO: &str = "--to";
const ENDPOINT: &str = "--s3-endpoint";
const CREDENTIALS: &str = "--s3-credentials";
/// Other than a secret key, each is enough to get credentials by.
const SOURCES: [Key; 3] = [
    Key::WebIdentityTokenFile,
    Key::ContainerCredentialsRelativeUri,
    Key::ContainerCredentialsFullUri,
];

/// A bucket of S3. What is not said here, the environment says (`AWS_…`).
#[derive(Clone, Debug, Default)]
pub struct BucketConfig {
    /// `BUCKET/PREFIX`, or `BUCKET` alone.
    pub place: String,
    /// `https://HOST[:PORT]`, or `http://` and an address of this machine; AWS's when nobody says.
    pub endpoint: Option<String>,
    /// AWS's region; `us-east-1` when nobody says.
    pub region: Option<String>,
    /// A file with `access_key_id` and `secret_access_key`, readable by its owner only.
    pub credentials: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    access_key_id: String,
    secret_access_key: String,
}

impl BucketConfig {
    /// What to ask, and what the names of files begin with. Nothing is asked yet.
    ///
    /// # Errors
    /// [`BucketError`] of an option or the credentials.
    pub fn client(&self) -> Result<(AmazonS3, Prefix), BucketError> {
        let (bucket, prefix) = place(&self.place)?;
        let mut builder = AmazonS3Builder::from_env();
        let own = |key: &Key| builder.get_config_value(key);
        let endpoint = self.endpoint.clone().or_else(|| own(&Key::S3Endpoint));
        let endpoint = endpoint.or_else(|| own(&Key::Endpoint));
        let local = endpoint.as_deref().map(is_local).transpose()?.unwrap_or(false);
        // What the environment says of clients is not taken: it can forgo proofs of who answers.
        let mut options = ClientOptions::new()
            .with_user_agent(HeaderValue::from_static(concat!(
                "sekimori-collector/",
                env!("CARGO_PKG_VERSION")
            )))
            .with_allow_http(local)
            .with_timeout(BUCKET_TIME_MAX);
        if let Some(endpoint) = endpoint {
            if local {
                // Without a proxy of its own it would take the environment's, and go there in clear.
                options = options.with_proxy_url(&endpoint).with_proxy_excludes("127.0.0.0/8,::1");
            }
            builder = builder.with_config(Key::S3Endpoint, endpoint);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        builder = match &self.credentials {
            Some(path) => {
                let credential = read(path)?;
                builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)))
            }
            None => of_environment(builder)?,
        };
        // They become headers.
        let region = builder.get_config_value(&Key::Region);
        if region.is_some_and(|it| it.is_empty() || !is_plain(&it)) {
            return Err(wrong("--s3-region", "expected a name as eu-central-1"));
        }
        let retry = RetryConfig {
            max_retries: BUCKET_RETRIES_MAX,
            retry_timeout: BUCKET_RETRY_TIME_MAX,
            ..RetryConfig::default()
        };
        let built = builder
            .with_bucket_name(bucket)
            .with_unsigned_payload(false)
            .with_client_options(options)
            .with_retry(retry)
            .build();
        Ok((built.map_err(|error| wrong(TO, error))?, prefix))
    }
}

fn wrong(option: &'static str, why: impl fmt::Display) -> BucketError {
    BucketError::Option { option, why: why.to_string() }
}

/// Bucket and prefix. What is wrong is not repeated: people write credentials into URLs.
fn place(text: &str) -> Result<(&str, Prefix), BucketError> {
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    let sound = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b".-".contains(&it);
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(sound) {
        return Err(wrong(
            TO,
            "expected s3://BUCKET/PREFIX, where the bucket's name has 3 to 63 of a-z 0-9 . -",
        ));
    }
    let prefix = Prefix::parse(prefix).map_err(|error| wrong(TO, error))?;
    Ok((bucket, prefix))
}

/// Whether it is this machine; anything else must have TLS.
fn is_local(endpoint: &str) -> Result<bool, BucketError> {
    let form = || wrong(ENDPOINT, "expected https://HOST or https://HOST:PORT");
    let url = Url::parse(endpoint).map_err(|_| form())?;
    let bare = url.username().is_empty() && url.password().is_none();
    if !bare || url.query().is_some() || url.fragment().is_some() {
        return Err(form());
    }
    let address = match url.host().ok_or_else(form)? {
        Host::Ipv4(address) => Some(IpAddr::from(address)),
        Host::Ipv6(address) => Some(IpAddr::from(address)),
        // A name might be another machine's tomorrow.
        Host::Domain(_) => None,
    };
    match url.scheme() {
        "https" => Ok(false),
        "http" if address.is_some_and(|it| it.is_loopback()) => Ok(true),
        "http" => Err(wrong(ENDPOINT, "http:// only to 127.0.0.1 or [::1]; expected https://")),
        _ => Err(form()),
    }
}

/// Not those of a machine at Amazon: whoever has none is told so at once.
fn of_environment(builder: AmazonS3Builder) -> Result<AmazonS3Builder, BucketError> {
    let value = |key: Key| builder.get_config_value(&key);
    let keys = [value(Key::AccessKeyId), value(Key::SecretAccessKey)];
    let plain = keys.iter().chain([&value(Key::Token)]).flatten().all(|it| is_plain(it));
    let both = keys.iter().all(|it| it.as_ref().is_some_and(|it| !it.is_empty()));
    let none = keys.iter().all(Option::is_none);
    if plain && (both || none && SOURCES.into_iter().any(|it| value(it).is_some())) {
        return Ok(builder);
    }
    Err(wrong(
        CREDENTIALS,
        "no credentials: name a file with the lines access_key_id: … and secret_access_key: …, or \
         set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ))
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn read(path: &Path) -> Result<AwsCredential, BucketError> {
    credential(path).map_err(|why| BucketError::Credentials { path: path.to_owned(), why })
}

fn credential(path: &Path) -> Result<AwsCredential, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let data = file.metadata().map_err(|error| error.to_string())?;
    if data.mode() & 0o077 != 0 {
        return Err("others may read it; chmod 600".to_owned());
    }
    let own = nix::unistd::geteuid();
    if !own.is_root() && data.uid() != own.as_raw() {
        return Err("it is somebody else's; it must belong to who runs the command".to_owned());
    }
    if data.len() > BUCKET_CREDENTIALS_BYTES_MAX {
        return Err(format!("longer than {BUCKET_CREDENTIALS_BYTES_MAX} bytes"));
    }
    let mut text = String::new();
    let read = file.take(BUCKET_CREDENTIALS_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    // The reader's own error shows the line.
    let document = serde_saphyr::from_str::<Document>(&text).ok();
    let sound = |it: &String| !it.is_empty() && is_plain(it);
    let document = document.filter(|it| sound(&it.access_key_id) && sound(&it.secret_access_key));
    let Document { access_key_id: key_id, secret_access_key: secret_key } =
        document.ok_or("expected two lines of YAML, access_key_id: … and secret_access_key: …")?;
    Ok(AwsCredential { key_id, secret_key, token: None })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("bucket", Some(("bucket", "")))]
    #[case("bucket/", Some(("bucket", "")))]
    #[case("b.1-c/a/東/", Some(("b.1-c", "a/東")))]
    #[case("bucket/a//b", None)]
    #[case("bucket/../b", None)]
    #[case("no", None)]
    #[case("", None)]
    #[case("key:secret@bucket/a", None)]
    fn where_it_may_be(#[case] text: &str, #[case] expected: Option<(&str, &str)>) {
        let found = place(text);
        let found = found.as_ref().ok().map(|(bucket, prefix)| (*bucket, prefix.as_ref()));
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case("https://s3.example", Some(false))]
    #[case("https://s3.example:9000/storage", Some(false))]
    #[case("https://127.0.0.1:9000", Some(false))]
    #[case("http://127.0.0.1:9000", Some(true))]
    #[case("http://[::1]:9000", Some(true))]
    #[case("http://localhost:9000", None)]
    #[case("http://192.0.2.1", None)]
    #[case("https://key:secret@s3.example", None)]
    #[case("https://s3.example/?key=secret", None)]
    #[case("ftp://s3.example", None)]
    #[case("s3.example", None)]
    fn endpoints(#[case] url: &str, #[case] local: Option<bool>) {
        let found = is_local(url);
        if let Err(error) = &found {
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert_eq!(found.ok(), local);
    }

    #[rstest]
    #[case("access_key_id: A\nsecret_access_key: s3cr3t/+=\n", 0o600, "")]
    #[case("access_key_id: A\nsecret_access_key: s3cr3t\n", 0o640, "chmod 600")]
    #[case("access_key_id: A\nsecret_access_key: [s3cr3t\n", 0o600, "expected two lines")]
    #[case("access_key_id: A\nsecret_access_key: \"s3cr3t\\n\"\n", 0o600, "expected two lines")]
    #[case("access_key_id: A\nsecret: s3cr3t\n", 0o600, "expected two lines")]
    #[case("s3cr3t", 0o600, "expected two lines")]
    fn credentials(#[case] text: &str, #[case] mode: u32, #[case] says: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = match read(&path) {
            Ok(credential) => {
                assert_eq!((credential.key_id.as_str(), says), ("A", ""));
                assert_eq!(credential.secret_key, "s3cr3t/+=");
                return;
            }
            Err(error) => error.to_string(),
        };
        assert!(!says.is_empty() && error.contains(says), "{error}");
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}
