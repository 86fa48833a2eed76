//! Whose a file is: projects, found from paths, and the identities that their keys go by.

use std::{collections::BTreeMap, fmt, path::Path, str::FromStr};

use crate::identity::{self, Identity};

/// A project, as its path below the drop directory names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectId(String);

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The values that a path gives to a template's variables.
pub type Variables = BTreeMap<String, String>;

/// Why a path belongs to no project. Stays, until the file or the configuration changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file lies above where projects begin.
    #[error(
        "the path is too short for the template \"{template}\": a file lies below {needed} directories"
    )]
    TooShort {
        /// The drop directory's template.
        template: String,
        /// How many directories a file lies below.
        needed: usize,
    },
    /// A directory does not have the form that the template wants.
    #[error("the directory \"{directory}\" does not fit \"{component}\" of the template")]
    Mismatch {
        /// The directory's name.
        directory: String,
        /// The template's component.
        component: String,
    },
    /// A directory's name has bytes that no project's name may have.
    #[error(
        "the directory \"{0}\" cannot name a project: only letters, digits and . _ + - are allowed, and an @ in front"
    )]
    Character(String),
    /// The identity that comes out is none.
    #[error("the identity \"{text}\" is not allowed: {source}")]
    Identity {
        /// What the template gave.
        text: String,
        /// Why it is refused.
        source: identity::Error,
    },
}

/// Why a template is refused. Stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is empty, or has an empty component.
    #[error("a template has no empty parts")]
    Empty,
    /// Braces that do not match, or a variable's name that is none.
    #[error("a variable is written as {{name}}, with lower-case letters and _")]
    Braces,
    /// A variable occurs twice in a path.
    #[error("the variable {{{0}}} occurs twice")]
    Twice(String),
    /// A variable that the path does not give a value to.
    #[error("the variable {{{0}}} does not occur in `project`")]
    Unknown(String),
    /// A name that cannot stand in a user id.
    #[error("a name has no control characters, < or >")]
    Name,
    /// Square brackets that are not one pair at a component's end.
    #[error(
        "square brackets stand around what may be missing, once, at the end of a directory's name: {{project}}[:{{variant}}]"
    )]
    Brackets,
    /// What may be missing could as well be a part of the value before it, so that two projects could get one key.
    #[error(
        "what stands in square brackets begins with a character that no value has, such as a colon: else it could be a part of the value before it"
    )]
    Inseparable,
    /// A variable of what may be missing is used in an identity or a name.
    #[error("the variable {{{0}}} may be missing, so no identity and no name can be made of it")]
    Optional(String),
    /// Two variables could not be told apart, so that two projects could get one key.
    #[error(
        "put a character such as # between {{{0}}} and {{{1}}}: with what is there now, two projects could have the same identity"
    )]
    Ambiguous(String, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(String),
}

/// Text with variables, such as `{owner}#{project}@copr.example.org`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct TextTemplate {
    parts: Vec<Part>,
}

impl FromStr for TextTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('{') {
                let (name, behind) = inside.split_once('}').ok_or(TemplateError::Braces)?;
                let named = |c: char| c.is_ascii_lowercase() || c == '_';
                if name.is_empty() || !name.chars().all(named) {
                    return Err(TemplateError::Braces);
                }
                parts.push(Part::Variable(name.to_owned()));
                rest = behind;
            } else {
                let end = rest.find('{').unwrap_or(rest.len());
                let (literal, behind) = rest.split_at(end);
                if literal.contains('}') {
                    return Err(TemplateError::Braces);
                }
                parts.push(Part::Literal(literal.to_owned()));
                rest = behind;
            }
        }
        if parts.is_empty() {
            return Err(TemplateError::Empty);
        }
        Ok(Self { parts })
    }
}

impl TryFrom<String> for TextTemplate {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        text.parse()
    }
}

impl fmt::Display for TextTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(text),
            Part::Variable(name) => write!(f, "{{{name}}}"),
        })
    }
}

impl TextTemplate {
    fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// The text with the variables' values; [`Templates::parse`] saw to it that each has one.
    fn fill(&self, variables: &Variables) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.as_str(),
                Part::Variable(name) => variables.get(name).map_or("", String::as_str),
            })
            .collect()
    }

    /// Whether values and text can always be told apart again, so that no two sets of values give one text.
    fn check_unambiguous(&self) -> Result<(), TemplateError> {
        let mut before: Option<&str> = None;
        let mut separated = true;
        for part in &self.parts {
            match part {
                Part::Literal(text) => separated |= text.chars().any(|c| !is_value_char(c)),
                Part::Variable(name) => {
                    if let (Some(before), false) = (before, separated) {
                        return Err(TemplateError::Ambiguous(before.into(), name.clone()));
                    }
                    before = Some(name);
                    separated = false;
                }
            }
        }
        Ok(())
    }

    /// The variables' values in `text`, each as short as can be, or nothing where the text does not fit.
    fn extract(&self, text: &str, variables: &mut Variables) -> Option<()> {
        fn extract(parts: &[Part], text: &str, variables: &mut Variables) -> Option<()> {
            match parts.split_first() {
                None => text.is_empty().then_some(()),
                Some((Part::Literal(literal), parts)) => {
                    extract(parts, text.strip_prefix(literal.as_str())?, variables)
                }
                Some((Part::Variable(name), parts)) => {
                    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
                    let (value, ()) = ends.into_iter().find_map(|end| {
                        let (value, rest) = text.split_at_checked(end)?;
                        Some((value, extract(parts, rest, variables)?))
                    })?;
                    variables.insert(name.clone(), value.to_owned());
                    Some(())
                }
            }
        }
        extract(&self.parts, text, variables)
    }
}

/// What one directory's name is to look like: `{project}`, or `{project}[:{variant}]`, whose second half may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Component {
    text: TextTemplate,
    /// Nothing that identifies a project: directories that differ in it alone belong to one project.
    variant: Option<TextTemplate>,
}

impl FromStr for Component {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let Some((text, rest)) = text.split_once('[') else {
            if text.contains(']') {
                return Err(TemplateError::Brackets);
            }
            let text = text.parse()?;
            return Ok(Self {
                text,
                variant: None,
            });
        };
        let variant = rest
            .strip_suffix(']')
            .filter(|variant| !variant.contains(['[', ']']))
            .ok_or(TemplateError::Brackets)?;
        if !variant.starts_with(|c: char| !is_value_char(c) && !matches!(c, '@' | '{')) {
            return Err(TemplateError::Inseparable);
        }
        Ok(Self {
            text: text.parse()?,
            variant: Some(variant.parse()?),
        })
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)?;
        match &self.variant {
            Some(variant) => write!(f, "[{variant}]"),
            None => Ok(()),
        }
    }
}

impl Component {
    fn variables(&self) -> impl Iterator<Item = &str> {
        let variant = self.variant.iter().flat_map(TextTemplate::variables);
        self.text.variables().chain(variant)
    }

    /// The variables' values in `text`, and what of it names the project, or nothing where the text does not fit.
    ///
    /// What may be missing is left out of both. It begins with a character that no value has, so that no two projects become one.
    fn extract<'t>(&self, text: &'t str) -> Option<(&'t str, Variables)> {
        let mut whole = Variables::new();
        let whole = self.text.extract(text, &mut whole).map(|()| (text, whole));
        if whole
            .as_ref()
            .is_some_and(|(_, values)| values.values().all(|value| is_value(value)))
        {
            return whole;
        }
        let Some(variant) = &self.variant else {
            return whole;
        };
        let split = text.char_indices().find_map(|(at, _)| {
            let (text, rest) = text.split_at_checked(at)?;
            let (mut values, mut ignored) = (Variables::new(), Variables::new());
            self.text.extract(text, &mut values)?;
            variant.extract(rest, &mut ignored)?;
            let is_variant = |value: &String| value.chars().all(|c| is_value_char(c) || c == ':');
            ignored.values().all(is_variant).then_some((text, values))
        });
        split.or(whole)
    }
}

/// The first directories below a drop directory, such as `{owner}/{project}`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct PathTemplate {
    components: Vec<Component>,
}

impl FromStr for PathTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let components: Vec<Component> =
            text.split('/').map(str::parse).collect::<Result<_, _>>()?;
        let mut seen: Vec<&str> = Vec::new();
        for name in components.iter().flat_map(Component::variables) {
            if seen.contains(&name) {
                return Err(TemplateError::Twice(name.to_owned()));
            }
            seen.push(name);
        }
        Ok(Self { components })
    }
}

impl TryFrom<String> for PathTemplate {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        text.parse()
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, component) in self.components.iter().enumerate() {
            if place > 0 {
                f.write_str("/")?;
            }
            component.fmt(f)?;
        }
        Ok(())
    }
}

/// A project that a path belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The project.
    pub id: ProjectId,
    /// The e-mail that names its key.
    pub identity: Identity,
    /// The name for its key's user id.
    pub name: String,
}

/// How a drop directory finds projects and their identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    path: PathTemplate,
    identity: TextTemplate,
    name: TextTemplate,
}

impl Templates {
    /// Checks that the templates go together: every variable has a value, and no two projects get one identity.
    ///
    /// Without `name`, it is the variables of the path with `_` between them.
    ///
    /// # Errors
    /// [`TemplateError`], which stays.
    pub fn parse(
        path: PathTemplate,
        identity: TextTemplate,
        name: Option<TextTemplate>,
    ) -> Result<Self, TemplateError> {
        let components = || path.components.iter();
        let given: Vec<&str> = components()
            .flat_map(|component| component.text.variables())
            .collect();
        let name = name.unwrap_or_else(|| default_name(&given, &path));
        for used in identity.variables().chain(name.variables()) {
            if !given.contains(&used) {
                let may_be_missing = components()
                    .flat_map(Component::variables)
                    .any(|name| name == used);
                let used = used.to_owned();
                return Err(if may_be_missing {
                    TemplateError::Optional(used)
                } else {
                    TemplateError::Unknown(used)
                });
            }
        }
        identity.check_unambiguous()?;
        let is_bad = |part: &Part| matches!(part, Part::Literal(text) if text.contains(['<', '>']) || text.contains(char::is_control));
        if name.parts.iter().any(is_bad) {
            return Err(TemplateError::Name);
        }
        Ok(Self {
            path,
            identity,
            name,
        })
    }

    /// How many directories below the root name a project.
    pub fn depth(&self) -> usize {
        self.path.components.len()
    }

    /// The path's template.
    pub fn path(&self) -> &PathTemplate {
        &self.path
    }

    /// The identity's template.
    pub fn identity(&self) -> &TextTemplate {
        &self.identity
    }

    /// The project of the file at `path`, relative to the drop directory.
    ///
    /// # Errors
    /// [`Error`], which stays.
    pub fn project(&self, path: &Path) -> Result<Project, Error> {
        let needed = self.path.components.len();
        let directories = path
            .parent()
            .map(|parent| parent.components().count())
            .unwrap_or_default();
        if directories < needed {
            return Err(Error::TooShort {
                template: self.path.to_string(),
                needed,
            });
        }
        let mut variables = Variables::new();
        let mut id = String::new();
        for (component, directory) in self.path.components.iter().zip(path.components()) {
            let directory = directory.as_os_str();
            let text = directory
                .to_str()
                .ok_or_else(|| Error::Character(directory.to_string_lossy().into_owned()))?;
            let (text, values) = component.extract(text).ok_or_else(|| Error::Mismatch {
                directory: text.to_owned(),
                component: component.to_string(),
            })?;
            variables.extend(values);
            if !id.is_empty() {
                id.push('/');
            }
            id.push_str(text);
        }
        if let Some(value) = variables.values().find(|value| !is_value(value)) {
            return Err(Error::Character(value.clone()));
        }
        let text = self.identity.fill(&variables);
        let identity = text
            .parse()
            .map_err(|source| Error::Identity { text, source })?;
        Ok(Project {
            id: ProjectId(id),
            identity,
            name: self.name.fill(&variables),
        })
    }
}

fn default_name(given: &[&str], path: &PathTemplate) -> TextTemplate {
    let mut parts = Vec::new();
    for name in given {
        if !parts.is_empty() {
            parts.push(Part::Literal("_".into()));
        }
        parts.push(Part::Variable((*name).to_owned()));
    }
    if parts.is_empty() {
        parts.push(Part::Literal(path.to_string()));
    }
    TextTemplate { parts }
}

fn is_value_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-')
}

/// Owners' and projects' names as COPR has them; a group's name has an @ in front.
fn is_value(text: &str) -> bool {
    let rest = text.strip_prefix('@').unwrap_or(text);
    !rest.is_empty() && rest.chars().all(is_value_char)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use super::*;

    fn templates(path: &str, identity: &str) -> Result<Templates, TemplateError> {
        Templates::parse(path.parse()?, identity.parse()?, None)
    }

    #[test]
    fn a_path_names_its_project_and_identity() {
        let templates =
            templates("{owner}/{project}", "{owner}#{project}@copr.example.org").unwrap();
        let project = templates
            .project(Path::new("@group/tools/fedora-43-x86_64/0001-a/a.rpm"))
            .unwrap();
        assert_eq!(project.id.to_string(), "@group/tools");
        assert_eq!(project.identity.as_str(), "@group#tools@copr.example.org");
        assert_eq!(project.name, "@group_tools");
    }

    #[test]
    fn a_component_may_mix_text_and_variables() {
        let templates = templates("home:{owner}:{project}", "{owner}#{project}@a.b").unwrap();
        let project = templates
            .project(Path::new("home:alice:tools/a.rpm"))
            .unwrap();
        assert_eq!(project.identity.as_str(), "alice#tools@a.b");
        assert!(matches!(
            templates.project(Path::new("alice:tools/a.rpm")),
            Err(Error::Mismatch { .. })
        ));
    }

    #[test]
    fn directories_that_differ_in_what_may_be_missing_belong_to_one_project() {
        let templates = templates(
            "{owner}/{project}[:{variant}]",
            "{owner}#{project}@copr.example.org",
        )
        .unwrap();
        assert_eq!(
            templates.path().to_string(),
            "{owner}/{project}[:{variant}]"
        );
        for directory in ["tools", "tools:pr:10", "tools:custom:a.b_c+d-e", "tools:1"] {
            let project = templates
                .project(&Path::new("@group").join(directory).join("a.rpm"))
                .unwrap();
            assert_eq!(project.id.to_string(), "@group/tools", "{directory}");
            assert_eq!(project.identity.as_str(), "@group#tools@copr.example.org");
            assert_eq!(project.name, "@group_tools");
        }
        for directory in [
            "tools:",
            ":pr:10",
            "tools:p r",
            "tools:pr\n",
            "tools:@pr",
            "to#ols:pr:10",
            "tools#pr",
        ] {
            let path = Path::new("alice").join(directory).join("a.rpm");
            assert!(
                matches!(
                    templates.project(&path),
                    Err(Error::Character(_) | Error::Mismatch { .. })
                ),
                "{directory}"
            );
        }
    }

    #[test]
    fn what_may_be_missing_is_told_from_text_with_the_same_characters() {
        let templates = templates(
            "home:{owner}:{project}[:{variant}]",
            "{owner}#{project}@a.b",
        )
        .unwrap();
        for directory in ["home:alice:tools", "home:alice:tools:pr:1"] {
            let project = templates
                .project(&Path::new(directory).join("a.rpm"))
                .unwrap();
            assert_eq!(project.identity.as_str(), "alice#tools@a.b", "{directory}");
        }
        assert!(templates.project(Path::new("home:alice/a.rpm")).is_err());
    }

    #[test]
    fn one_key_for_everything_needs_no_variable() {
        let templates = templates("packages", "builds@example.org").unwrap();
        let project = templates.project(Path::new("packages/a.rpm")).unwrap();
        assert_eq!(project.identity.as_str(), "builds@example.org");
        assert_eq!(project.name, "packages");
    }

    #[test]
    fn paths_that_name_no_project_are_refused() {
        let templates = templates("{owner}/{project}", "{owner}#{project}@a.b").unwrap();
        for path in ["a.rpm", "alice/a.rpm"] {
            assert!(matches!(
                templates.project(Path::new(path)),
                Err(Error::TooShort { needed: 2, .. })
            ));
        }
        let non_utf8 = OsStr::from_bytes(b"ali\xffce/tools/a.rpm");
        for path in [
            OsStr::new("alice#x/tools/a.rpm"),
            OsStr::new("al ice/tools/a.rpm"),
            OsStr::new("alice/to\nols/a.rpm"),
            OsStr::new("alice/to@ols/a.rpm"),
            OsStr::new("@/tools/a.rpm"),
            non_utf8,
        ] {
            assert!(
                matches!(templates.project(Path::new(path)), Err(Error::Character(_))),
                "{path:?}"
            );
        }
    }

    #[test]
    fn templates_that_could_give_two_projects_one_key_are_refused() {
        for identity in [
            "{owner}{project}@a.b",
            "{owner}-{project}@a.b",
            "{owner}_x.{project}@a.b",
        ] {
            assert!(
                matches!(
                    templates("{owner}/{project}", identity),
                    Err(TemplateError::Ambiguous(..))
                ),
                "{identity}"
            );
        }
    }

    #[test]
    fn malformed_templates_are_refused() {
        for (path, identity, error) in [
            ("", "a@b", TemplateError::Empty),
            ("{a}//{b}", "a@b", TemplateError::Empty),
            ("{a", "a@b", TemplateError::Braces),
            ("a}", "a@b", TemplateError::Braces),
            ("{}", "a@b", TemplateError::Braces),
            ("{A}", "a@b", TemplateError::Braces),
            ("{a}/{a}", "a@b", TemplateError::Twice("a".into())),
            ("{a}", "{b}@b", TemplateError::Unknown("b".into())),
            ("{a}[:{b}]", "{b}@b", TemplateError::Optional("b".into())),
            ("{a}[:{a}]", "{a}@b", TemplateError::Twice("a".into())),
            ("{a}[:{b}", "{a}@b", TemplateError::Brackets),
            ("{a}:{b}]", "{a}@b", TemplateError::Brackets),
            ("{a}[:{b}]x", "{a}@b", TemplateError::Brackets),
            ("{a}[:{b}][:{c}]", "{a}@b", TemplateError::Brackets),
            ("{a}[:[{b}]]", "{a}@b", TemplateError::Brackets),
            ("{a}[]", "{a}@b", TemplateError::Inseparable),
            ("{a}[-{b}]", "{a}@b", TemplateError::Inseparable),
            ("{a}[{b}]", "{a}@b", TemplateError::Inseparable),
            ("{a}[@{b}]", "{a}@b", TemplateError::Inseparable),
            ("[:{b}]", "a@b", TemplateError::Empty),
        ] {
            assert_eq!(templates(path, identity), Err(error), "{path} {identity}");
        }
    }
}
