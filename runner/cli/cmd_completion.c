/* The shells' side of completion: short scripts that ask `dstack completion -- WORD…`. */
#include "runner/cli/cli.h"
#include "runner/cli/complete.h"

#include <stdio.h>
#include <string.h>

/* bash replaces only what stands behind the last ':' or '=', and does not say which words were
 * quoted. */
static const char bash[] = "_dstack() {\n"
                           "    local words found status cut line=${COMP_LINE:0:COMP_POINT}\n"
                           "    read -ra words <<<\"$line\"\n"
                           "    [[ $line == *[[:space:]] ]] && words+=(\"\")\n"
                           "    found=$(dstack completion -- \"${words[@]:1}\" 2>/dev/null)\n"
                           "    status=$?\n"
                           "    COMPREPLY=()\n"
                           "    [[ $status -eq 3 ]] && compopt -o default 2>/dev/null\n"
                           "    [[ -n $found ]] || return 0\n"
                           "    mapfile -t COMPREPLY <<<\"$found\"\n"
                           "    cut=${words[-1]}\n"
                           "    cut=${cut%\"${cut##*[\"$COMP_WORDBREAKS\"]}\"}\n"
                           "    COMPREPLY=(\"${COMPREPLY[@]%%$'\\t'*}\")\n"
                           "    COMPREPLY=(\"${COMPREPLY[@]#\"$cut\"}\")\n"
                           "}\n"
                           "complete -F _dstack dstack\n";

static const char zsh[] =
    "#compdef dstack\n"
    "_dstack() {\n"
    "    local found result\n"
    "    local -a lines names shown\n"
    "    found=$(dstack completion -- \"${(@Q)words[2,CURRENT-1]}\" \"${(Q)PREFIX}\" 2>/dev/null)\n"
    "    result=$?\n"
    "    (( result == 3 )) && { _files; return }\n"
    "    [[ -n $found ]] || return 1\n"
    "    lines=(\"${(@f)found}\")\n"
    "    names=(\"${(@)lines%%$'\\t'*}\")\n"
    "    shown=(\"${(@)lines/$'\\t'/  -- }\")\n"
    "    compadd -l -d shown -a names\n"
    "}\n"
    "if [[ $funcstack[1] == _dstack ]]; then _dstack; else compdef _dstack dstack; fi\n";

static const char fish[] =
    "function __dstack_complete\n"
    "    set -l words (commandline -opc)\n"
    "    set -l word (commandline -ct)\n"
    "    set -l found (command dstack completion -- $words[2..-1] \"$word\" 2>/dev/null)\n"
    "    if test $status -eq 3\n"
    "        __fish_complete_path \"$word\"\n"
    "    else if set -q found[1]\n"
    "        printf '%s\\n' $found\n"
    "    end\n"
    "end\n"
    "complete -c dstack -f -a '(__dstack_complete)'\n";

static int run(const struct command *command, int argc, char **argv)
{
    static const struct {
        const char *shell, *script;
    } scripts[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    int status;

    if (argc > 1 && strcmp(argv[1], "--") == 0)
        return complete_words(argv + 2);
    if (!cli_parse(command, NULL, &argc, &argv, 1, 1, &status))
        return status;
    for (unsigned i = 0; i < G_N_ELEMENTS(scripts); i++)
        if (strcmp(scripts[i].shell, argv[1]) == 0)
            return fputs(scripts[i].script, stdout) == EOF;
    cli_say("dstack completion", "there are bash, zsh and fish");
    return 2;
}

const struct command cmd_completion = {"completion", "SHELL",
                                       "Prints the completion script of bash, zsh or fish.", run};
