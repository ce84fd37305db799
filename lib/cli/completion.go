package cli

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"observability-hub/lib/sysexits"
)

// completionFlag is the hidden flag with which `make build` asks a tool for its
// completion: tool --completion bash|zsh|fish. It works only as the first word.
const completionFlag = "--completion"

// word is what can follow a flag or a command: nothing, a value of a kind that the
// shell completes, or one of several words.
type word struct {
	kind    string   // "": nothing follows; "DIR", "FILE"; other placeholders are not completed
	choices []string // of an enum
}

// completed is a flag as the shells see it.
type completed struct {
	name, help string // such as state-dir
	short      rune
	repeats    bool
	word
}

// completedCommand is a command as the shells see it.
type completedCommand struct {
	name, help string
	standard   bool // run if no command is named
	flags      []completed
	argument   word // its first positional argument
}

// writeCompletion writes the completion of the tool for a shell: its commands and
// their flags, the values of enums, and files and directories. All of it comes from
// kong's model. A value is a file or a directory if its placeholder is FILE or DIR.
func writeCompletion(env *Env, shell string, stderr io.Writer) error {
	write := map[string]func(io.Writer, string, []completedCommand){
		"bash": bashCompletion, "fish": fishCompletion, "zsh": zshCompletion,
	}[shell]
	if write == nil {
		return sysexits.New(sysexits.Usage, "usage", fmt.Errorf("%s %q is not bash, zsh or fish", completionFlag, shell))
	}
	parser, err := newParser(env, env.Commands, true, stderr)
	if err != nil {
		return err
	}
	var script bytes.Buffer
	fmt.Fprintf(&script, "# Completion of %s for %s. It is the output of: %[1]s %[3]s %[2]s\n", env.Name, shell, completionFlag)
	write(&script, env.Name, completedCommands(env.Name, parser.Model))
	if shell == "zsh" { // whose marker must be on the first line
		fmt.Fprintln(env.Stdout, "#compdef", env.Name)
	}
	_, err = script.WriteTo(env.Stdout)
	return err
}

// completedCommands reads the commands that are not hidden from kong's model.
func completedCommands(tool string, model *kong.Application) []completedCommand {
	var commands []completedCommand
	for _, node := range model.Children {
		if node.Hidden {
			continue
		}
		c := completedCommand{name: node.Name, help: brief(node.Help), standard: node == model.DefaultCmd}
		for _, f := range slices.Concat(node.Flags, model.Flags) {
			if f.Hidden {
				continue
			}
			help, _, _ := strings.Cut(f.Help, " ($"+variable(tool, f)+")")
			c.flags = append(c.flags, completed{f.Name, brief(help), f.Short, f.IsSlice(), follows(f.Value, f.PlaceHolder)})
		}
		if len(node.Positional) > 0 {
			c.argument = follows(node.Positional[0], node.Positional[0].Tag.PlaceHolder)
		}
		commands = append(commands, c)
	}
	return commands
}

// follows returns what follows a flag, or stands for an argument.
func follows(v *kong.Value, placeholder string) word {
	if v.IsBool() {
		return word{}
	}
	w := word{kind: strings.ToUpper(placeholder)}
	if w.kind == "" {
		w.kind = "VALUE"
	}
	for _, choice := range v.EnumSlice() {
		if choice != "" {
			w.choices = append(w.choices, choice)
		}
	}
	return w
}

// brief returns the beginning of a help text, up to its first full stop, colon,
// semicolon or parenthesis.
func brief(help string) string {
	for _, end := range []string{". ", ": ", "; ", " ("} {
		help, _, _ = strings.Cut(help, end)
	}
	return strings.TrimSuffix(help, ".")
}

// quoted quotes text for all three shells.
func quoted(text string) string {
	return "'" + strings.NewReplacer(`\`, "", "'", `'\''`).Replace(text) + "'"
}

// options returns the flags as they are typed.
func (c completedCommand) options() []string {
	var names []string
	for _, f := range c.flags {
		names = append(names, "--"+f.name)
	}
	return names
}

func bashCompletion(w io.Writer, tool string, commands []completedCommand) {
	var names []string
	standard := ""
	for _, c := range commands {
		names = append(names, c.name)
		if c.standard {
			standard = c.name
		}
	}
	function := "_" + strings.ReplaceAll(tool, "-", "_")
	// bash makes a separate word of the = in --flag=value.
	fmt.Fprintf(w, `%s() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=%s options='--help --version' argument=''
  if [[ $cur == = ]]; then
    cur=''
  elif [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  if ((COMP_CWORD > 1)) && [[ ${COMP_WORDS[1]} != -* ]]; then
    command=${COMP_WORDS[1]}
  elif ((COMP_CWORD == 1)) && [[ $cur != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '%s' -- "$cur")
    return
  fi
  case $command in
`, function, quoted(standard), strings.Join(names, " "))
	for _, c := range commands {
		fmt.Fprintf(w, "    %s)\n      options='%s'\n", c.name, strings.Join(c.options(), " "))
		if c.argument.kind != "" {
			fmt.Fprintf(w, "      argument=%s\n", c.argument.kind)
		}
		fmt.Fprintln(w, "      case $prev in")
		for _, f := range c.flags {
			switch {
			case f.choices != nil:
				fmt.Fprintf(w, "        --%s) options='%s' argument='' ;;\n", f.name, strings.Join(f.choices, " "))
			case f.kind != "":
				fmt.Fprintf(w, "        --%s) options='' argument=%s ;;\n", f.name, f.kind)
			}
		}
		fmt.Fprint(w, "      esac\n      ;;\n")
	}
	fmt.Fprintf(w, `  esac
  if [[ $cur == -* || -z $argument ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
  elif [[ $argument == FILE || $argument == DIR ]]; then
    compopt -o filenames
    if [[ $argument == FILE ]]; then argument=-f; else argument=-d; fi
    mapfile -t COMPREPLY < <(compgen "$argument" -- "$cur")
  fi
}
complete -F %s %s
`, function, tool)
}

func zshCompletion(w io.Writer, _ string, commands []completedCommand) {
	fmt.Fprint(w, "if ((CURRENT == 2)) && [[ $words[2] != -* ]]; then\n  local -a commands=(\n")
	for _, c := range commands {
		fmt.Fprintf(w, "    %s\n", quoted(c.name+":"+strings.ReplaceAll(c.help, ":", "")))
	}
	fmt.Fprint(w, "  )\n  _describe -t commands command commands\n  return\nfi\nlocal command=$words[2]\n")
	fmt.Fprint(w, "if [[ $command != -* ]]; then\n  shift words\n  ((CURRENT--))\nfi\ncase $command in\n")
	// _arguments gives these characters a meaning.
	plain := strings.NewReplacer("[", "", "]", "", ":", "")
	actions := map[string]string{"FILE": "_files", "DIR": "_files -/"}
	for _, c := range commands {
		pattern := c.name
		if c.standard {
			pattern += " | -*"
		}
		fmt.Fprintf(w, "  %s)\n    _arguments", pattern)
		for _, f := range c.flags {
			spec := "--" + f.name
			if f.kind != "" {
				spec += "="
			}
			if f.repeats {
				spec = "*" + spec
			}
			spec += "[" + plain.Replace(f.help) + "]"
			if f.choices != nil {
				spec += ":" + plain.Replace(f.name) + ":(" + strings.Join(f.choices, " ") + ")"
			} else if f.kind != "" {
				spec += ":" + plain.Replace(f.kind) + ":" + actions[f.kind]
			}
			fmt.Fprintf(w, " \\\n      %s", quoted(spec))
		}
		if action := actions[c.argument.kind]; action != "" {
			fmt.Fprintf(w, " \\\n      %s", quoted("*:"+c.argument.kind+":"+action))
		}
		fmt.Fprint(w, "\n    ;;\n")
	}
	fmt.Fprintln(w, "esac")
}

func fishCompletion(w io.Writer, tool string, commands []completedCommand) {
	fmt.Fprintf(w, "complete -c %s -f\n", tool)
	for _, c := range commands {
		fmt.Fprintf(w, "complete -c %s -n __fish_use_subcommand -a %s -d %s\n", tool, c.name, quoted(c.help))
	}
	for _, c := range commands {
		conditions := []string{"__fish_seen_subcommand_from " + c.name}
		if c.standard {
			conditions = append(conditions, "__fish_use_subcommand")
		}
		for _, condition := range conditions {
			for _, f := range c.flags {
				fmt.Fprintf(w, "complete -c %s -n '%s' -l %s", tool, condition, f.name)
				if f.short != 0 {
					fmt.Fprintf(w, " -s %c", f.short)
				}
				fmt.Fprint(w, f.fish())
				fmt.Fprintf(w, " -d %s\n", quoted(f.help))
			}
		}
		if c.argument.kind == "FILE" || c.argument.kind == "DIR" {
			fmt.Fprintf(w, "complete -c %s -n '%s'%s\n", tool, conditions[0], c.argument.fish())
		}
	}
}

// fish returns the options of fish's complete for the word.
func (w word) fish() string {
	switch {
	case w.choices != nil:
		return " -x -a '" + strings.Join(w.choices, " ") + "'"
	case w.kind == "DIR":
		return " -x -a '(__fish_complete_directories)'"
	case w.kind == "FILE":
		return " -r -F"
	case w.kind != "":
		return " -x"
	}
	return ""
}
