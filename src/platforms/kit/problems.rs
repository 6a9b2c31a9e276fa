//! Collects the problems of a probe run, each once and at most [`MAX_PROBLEMS`].

use parking_lot::Mutex;

use crate::platforms::Problem;

/// Maximum number of problems in the summary of one probe run. A person reads them; all others are in the observations.
pub const MAX_PROBLEMS: usize = 20;

/// The problems of a probe run so far.
#[derive(Debug, Default)]
pub struct Problems(Mutex<Vec<Problem>>);

impl Problems {
    /// Records a problem. One with the same text was recorded already if several requests fail for the same reason.
    pub fn add(&self, problem: Problem) {
        let mut problems = self.0.lock();
        if problems.len() < MAX_PROBLEMS && problems.iter().all(|known| known.text != problem.text) {
            problems.push(problem);
        }
    }

    /// Takes the problems, in the order in which they were recorded.
    pub fn take(&self) -> Vec<Problem> {
        std::mem::take(&mut self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_recorded_once_and_bounded() {
        let problems = Problems::default();
        for number in 0..30 {
            problems.add(Problem::of_platform(format!("problem {}", number / 2)));
        }
        let taken = problems.take();
        let texts: Vec<_> = taken.iter().map(|problem| problem.text.as_str()).collect();
        assert_eq!((texts.len(), texts[0], texts[1]), (15, "problem 0", "problem 1"));
        for number in 0..30 {
            problems.add(Problem::of_platform(format!("problem {number}")));
        }
        assert_eq!(problems.take().len(), MAX_PROBLEMS);
        assert_eq!(problems.take(), []);
    }
}
