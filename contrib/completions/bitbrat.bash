# Loaded at the first completion of `bitbrat`; the program writes the rest, so it always fits the installed version.
eval "$(bitbrat completion bash)"
