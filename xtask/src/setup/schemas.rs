//! The schemas of others that our output is checked against, each from a package of its own
//! ecosystem: the tests of `proto/formats` look for them in the cache.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cache, process};

/// From PyPI: OCSF as JSON Schema, and what checks by it.
const OCSF: [(&str, &str); 2] = [("ocsf-json-schema", "1.2.0"), ("jsonschema", "4.26.0")];
/// From npm: the flat list of fields of ECS. It is the last of the eighth series.
const ECS: (&str, &str) = ("@elastic/ecs", "8.11.5");
/// Prints the list as JSON; a field's description is of no use here.
const ECS_TO_JSON: &str = "\
const { EcsFlat } = require('@elastic/ecs/generated/ecs_flat.js');
const keep = ({ type, normalize, allowed_values }) => ({ type, normalize, allowed_values });
const fields = Object.entries(EcsFlat).map(([name, field]) => [name, keep(field)]);
console.log(JSON.stringify(Object.fromEntries(fields)));";

/// Installs what is missing; calls `report` with name and version of each.
///
/// # Errors
/// When a package cannot be had; the error names the command that failed.
pub fn ensure(mut report: impl FnMut(&str, &str)) -> Result<()> {
    let cache = cache::directory()?;
    ocsf(&cache.join("ocsf"))?;
    ecs(&cache.join("ecs"))?;
    for (name, version) in OCSF.into_iter().chain([ECS]) {
        report(name, version);
    }
    Ok(())
}

/// Into a directory of its own: what Debian itself installs stays as it is.
fn ocsf(at: &Path) -> Result<()> {
    let wanted = OCSF.map(|(name, version)| format!("{name}=={version}"));
    if is_done(at, &wanted.join(" ")) {
        return Ok(());
    }
    println!("get    {}", wanted.join(" "));
    let mut pip = Command::new("/usr/bin/python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]);
    pip.arg("--target").arg(at).args(&wanted);
    process::output(&mut pip).context("the schema of OCSF comes from PyPI")?;
    done(at, &wanted.join(" "))
}

fn ecs(at: &Path) -> Result<()> {
    let wanted = format!("{}@{}", ECS.0, ECS.1);
    if is_done(at, &wanted) {
        return Ok(());
    }
    println!("get    {wanted}");
    cache::make(at)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-save", "--ignore-scripts", "--no-audit", "--prefix"]);
    process::output(npm.arg(at).arg(&wanted)).context("the fields of ECS come from npm")?;
    let mut node = Command::new("node");
    let fields = process::output(node.current_dir(at).args(["-e", ECS_TO_JSON]))?;
    std::fs::write(at.join("fields.json"), fields)?;
    done(at, &wanted)
}

fn is_done(at: &Path, wanted: &str) -> bool {
    std::fs::read_to_string(at.join(".installed")).is_ok_and(|installed| installed == wanted)
}

fn done(at: &Path, wanted: &str) -> Result<()> {
    std::fs::write(at.join(".installed"), wanted)
        .with_context(|| format!("cannot write below {}", at.display()))
}
