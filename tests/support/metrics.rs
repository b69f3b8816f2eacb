//! Figures read from a page of metrics.

use std::iter::Sum;
use std::str::FromStr;

/// The sum of the series that begin with `series`. Values of another type are left out.
pub(crate) fn sum<T: FromStr + Sum>(page: &str, series: &str) -> T {
    sum_of(page, |line| line.starts_with(series))
}

/// The sum of the series of the metric `name`, whatever their labels.
pub(crate) fn family<T: FromStr + Sum>(page: &str, name: &str) -> T {
    sum_of(page, |line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    })
}

fn sum_of<T: FromStr + Sum>(page: &str, wanted: impl Fn(&str) -> bool) -> T {
    let lines = page.lines().filter(|line| wanted(line));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok());
    values.sum()
}
