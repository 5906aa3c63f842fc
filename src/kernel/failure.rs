//! Finds, in the output of a failed parallel make, the line a person needs to see.

/// Lines shown before and after it.
const AROUND: usize = 4;

/// The first line that tells an error and the lines around it; without one, the end of the output.
pub(super) fn first_error(output: &str) -> (String, String) {
    let lines: Vec<&str> = output.lines().collect();
    let tells = |line: &str| {
        let compiler = [
            ": error:",
            ": fatal error:",
            ": Error:",
            "undefined reference",
            "ld: ",
            "internal compiler error",
        ];
        let told = compiler.iter().any(|sign| line.contains(sign));
        told && !line.starts_with("make") && !line.contains("warning:")
    };
    // make's own complaint names a target at most: second choice.
    let makes = |line: &str| line.starts_with("make") && line.contains("***");
    let place =
        lines.iter().position(|line| tells(line)).or_else(|| lines.iter().position(|line| makes(line)));
    if let Some(at) = place {
        let context = &lines[at.saturating_sub(AROUND)..lines.len().min(at + AROUND + 1)];
        (lines[at].trim().to_owned(), context.join("\n"))
    } else {
        let last = lines.last().map_or("it printed nothing", |line| line.trim());
        (last.to_owned(), lines[lines.len().saturating_sub(2 * AROUND)..].join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::first_error;

    #[test]
    fn the_compilers_line_is_found_among_other_jobs() {
        let output = "  CC      a.o\n  CC      b.o\nb.c: In function 'f':\nb.c:7:3: error: expected ';'\n  CC      c.o\n\
                      make[1]: *** [scripts/Makefile.build:286: b.o] Error 1\nmake: *** [Makefile:1868: .] Error 2\n";
        let (first, context) = first_error(output);
        assert_eq!(first, "b.c:7:3: error: expected ';'");
        assert!(context.contains("In function 'f'"), "{context}");
    }

    #[test]
    fn a_linkers_warning_is_no_error() {
        let output =
            "ld: warning: x has a LOAD segment with RWX permissions\nld: y.o: in function `f': undefined\n";
        assert!(first_error(output).0.starts_with("ld: y.o"));
    }

    #[test]
    fn makes_own_complaint_is_second_choice_and_the_end_third() {
        assert!(
            first_error("  CC x\nmake[2]: *** No rule to make target 'y'.  Stop.\n").0.contains("No rule")
        );
        assert_eq!(first_error("one\ntwo\n").0, "two");
        assert_eq!(first_error("").0, "it printed nothing");
    }
}
