//! Path patterns: absolute, component by component.

use crate::limits::PATH_COMPONENTS_MAX;
use sekimori_abi::limits::NAME_BYTES_MAX;

/// One component of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// Exactly this name.
    Name(String),
    /// `*`: exactly one component of any name.
    One,
    /// `**`: any number of components, also none.
    Deep,
}

/// A path pattern: `/srv/customers/**` is the directory itself and all below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    components: Vec<Component>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, (String, Option<String>)> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(fault("the path is not absolute", Some("begin with `/`".to_owned())));
        };
        if rest.is_empty() {
            let hint = "write `/**` for every file".to_owned();
            return Err(fault("`/` names only the root directory itself", Some(hint)));
        }
        if let Some(directory) = text.strip_suffix('/') {
            let hint = format!(
                "write `{directory}/**` for the directory and all below, or `{directory}` for \
                 it alone"
            );
            return Err(fault("the path ends with `/`", Some(hint)));
        }
        let mut components = Vec::new();
        for name in rest.split('/') {
            let component = component(name)?;
            // `**/**` means `**`.
            if component != Component::Deep || components.last() != Some(&Component::Deep) {
                components.push(component);
            }
        }
        if components.len() > PATH_COMPONENTS_MAX {
            let message = format!(
                "the path has {} components; at most {PATH_COMPONENTS_MAX} are followed",
                components.len()
            );
            return Err((message, None));
        }
        Ok(Self { components })
    }

    /// The components, from the root on; `**` is never followed by `**`.
    pub fn components(&self) -> &[Component] {
        &self.components
    }
}

fn fault(message: &str, hint: Option<String>) -> (String, Option<String>) {
    (message.to_owned(), hint)
}

fn component(name: &str) -> Result<Component, (String, Option<String>)> {
    match name {
        "*" => return Ok(Component::One),
        "**" => return Ok(Component::Deep),
        "" => return Err(fault("the path has an empty component (`//`)", None)),
        "." | ".." => {
            let message = format!("`{name}` is not allowed in a path");
            return Err((message, Some("write the path it leads to".to_owned())));
        }
        _ => {}
    }
    if name.contains('*') {
        let message =
            format!("`*` inside a name (`{}`) is not supported", crate::finding::shown(name));
        let hint = "use `*` for one whole component or `**` for any number of them".to_owned();
        return Err((message, Some(hint)));
    }
    if name.contains('\0') {
        return Err(fault("the path has a zero byte, which no file name can have", None));
    }
    if name.len() >= NAME_BYTES_MAX {
        let message = format!(
            "a component is {} bytes long; a file name has at most {}",
            name.len(),
            NAME_BYTES_MAX - 1
        );
        return Err((message, None));
    }
    Ok(Component::Name(name.to_owned()))
}
