//! Secrets, and who we say we are.

use std::{fmt, sync::Arc};

/// A password. `Debug` shows `***`, there is no `Display`, and it is read with [`expose`](Self::expose) only.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// A user name and a password, each optional; without a user name it is the server's default user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The user. Default: the server's default user.
    pub username: Option<String>,
    /// The password. Default: none, and nothing is authenticated.
    pub password: Option<Secret>,
}

impl Credentials {
    /// A password of the default user.
    pub fn password(password: impl Into<Secret>) -> Self {
        Self { username: None, password: Some(password.into()) }
    }

    /// A user and its password.
    pub fn user(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self { username: Some(username.into()), password: Some(password.into()) }
    }

    /// Neither a user nor a password.
    pub fn is_empty(&self) -> bool {
        self.username.is_none() && self.password.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_a_password() {
        let credentials = Credentials::user("app", "hunter2");
        assert!(!format!("{credentials:?} {credentials:#?}").contains("hunter2"));
    }
}
