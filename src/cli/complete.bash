# Completions of PROGRAM for bash 3.2 and later.
_PROGRAM() {
    # Bash breaks words at colons and equals signs; each is put together again.
    local -a words=()
    local index word glue=
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word="${COMP_WORDS[index]}"
        if ((${#words[@]} > 1)) && [[ -n $glue || $word == [:=]* ]]; then
            words[${#words[@]} - 1]+="$word"
        else
            words+=("$word")
        fi
        if [[ $word == *[:=] ]]; then glue=1; else glue=; fi
    done
    # Readline replaces only what follows the last of them.
    local current="${words[${#words[@]} - 1]}" before=
    if [[ $current == *[:=]* && $COMP_WORDBREAKS == *:* ]]; then
        before="${current%"${current##*[:=]}"}"
    fi
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("${word#"$before"}")
    done < <(VARIABLE=bash COMPLETER -- "${words[@]}" 2>/dev/null)
    # A key, a platform and a directory are followed by more.
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == *[=/:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _PROGRAM PROGRAM
