//! Whether this kernel can do the job, tried out rather than guessed.

use serde::Serialize;

use super::{
    KernelError, load,
    offsets::Offsets,
    plan::{self, Feature},
};

/// One condition.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// It holds.
    pub ok: bool,
    /// What was found, or what to do.
    pub detail: String,
}

/// What `sekimori doctor` tells.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorReport {
    /// The running kernel's release.
    pub kernel: String,
    /// The kernel's type information.
    pub btf: Check,
    /// BPF programs may decide.
    pub bpf_lsm: Check,
    /// Loading the programs' maps.
    pub load: Check,
    /// Each program on its hook.
    pub features: Vec<Feature>,
    /// The agent can run here with everything it requires.
    pub ok: bool,
    /// Something failed only for lack of permission.
    pub permission: bool,
}

/// Loads and attaches every program for a moment, without a policy: nothing is judged or recorded.
pub fn doctor() -> DoctorReport {
    let kernel = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_else(|error| format!("unknown ({error})"));
    let btf = match Offsets::resolve() {
        Ok(offsets) => found(&offsets),
        Err(error) => Check { ok: false, detail: error.to_string() },
    };
    let bpf_lsm = match load::check_lsm() {
        Ok(list) => Check { ok: true, detail: list },
        Err(error) => Check { ok: false, detail: error.to_string() },
    };
    let mut permission = false;
    let (load, features) = match load::load(false) {
        Ok(mut loaded) => {
            let check = Check { ok: true, detail: "maps created".to_owned() };
            (check, plan::try_out(&mut loaded))
        }
        Err(error) => {
            permission = matches!(error, KernelError::Permission(_));
            (Check { ok: false, detail: error.to_string() }, Vec::new())
        }
    };
    let attached = features.iter().all(|feature| feature.attached || !feature.required);
    let ok = btf.ok && bpf_lsm.ok && load.ok && attached;
    DoctorReport { kernel, btf, bpf_lsm, load, features, ok, permission }
}

fn found(offsets: &Offsets) -> Check {
    let missing: Vec<String> = offsets
        .missing
        .iter()
        .map(|field| format!("{}.{}", field.structure, field.member))
        .collect();
    let detail = if missing.is_empty() {
        format!("{} fields found", offsets.values.len())
    } else {
        format!("{} fields, without {}", offsets.values.len(), missing.join(", "))
    };
    Check { ok: true, detail }
}
