//! Parameters of requests.

/// The parameters of a request, in order and with repetitions.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a query, or a form.
    pub fn parse(raw: &str) -> Self {
        Self(url::form_urlencoded::parse(raw.as_bytes()).into_owned().collect())
    }

    /// Adds the parameters of `raw` after the existing ones.
    pub fn and(mut self, raw: &str) -> Self {
        self.0.extend(Self::parse(raw).0);
        self
    }

    /// Returns the first value of `name` that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// Returns all values of `name`.
    pub fn all<'a, 'b>(&'a self, name: &'b str) -> impl Iterator<Item = &'a str> + use<'a, 'b> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}
