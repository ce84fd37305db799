package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// choose has a flag and an argument of each kind that a shell completes.
type choose struct {
	greet
	Color string   `enum:"red,green" default:"red" help:"It's a color: any."`
	Into  string   `placeholder:"DIR" help:"Where to. (Not here.)"`
	Lists []string `placeholder:"FILE"`
	Inner bool     `hidden:""`
	From  string   `arg:"" placeholder:"FILE"`
}

// TestCompletedCommands compares what the shells get with the grammar. e2e types into the shells.
func TestCompletedCommands(t *testing.T) {
	app := tool()
	app.Commands = append(app.Commands, Command{Name: "choose", Help: "Choose; or not.", Grammar: &choose{}})
	app.Flags += "lists More.\n"
	parser, err := newParser(&Env{App: app}, app.Commands, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	commands := completedCommands(app.Name, parser.Model)
	var names []string
	for _, c := range commands {
		names = append(names, c.name)
	}
	if want := []string{"greet", "wait", "choose"}; !slices.Equal(names, want) { // not the hidden one
		t.Fatalf("commands %q; want %q", names, want)
	}
	if !commands[0].standard || commands[1].standard || commands[2].help != "Choose" {
		t.Errorf("commands %+v", commands)
	}
	choose := commands[2]
	if want := []string{"--to-whom", "--times", "--careless", "--fail", "--color", "--into", "--lists", "--help", "--version"}; !slices.Equal(choose.options(), want) {
		t.Errorf("flags %q; want %q", choose.options(), want)
	}
	for _, want := range []completed{
		{name: "to-whom", help: "Who is greeted", word: word{kind: "VALUE"}},
		{name: "careless", help: "Do not look at write errors"},
		{name: "color", help: "It's a color", word: word{kind: "VALUE", choices: []string{"red", "green"}}},
		{name: "into", help: "Where to", word: word{kind: "DIR"}},
		{name: "lists", help: "More", repeats: true, word: word{kind: "FILE"}},
		{name: "help", help: "Show context-sensitive help", short: 'h'},
	} {
		if !slices.ContainsFunc(choose.flags, func(f completed) bool {
			return f.name == want.name && f.help == want.help && f.short == want.short && f.repeats == want.repeats &&
				f.kind == want.kind && slices.Equal(f.choices, want.choices)
		}) {
			t.Errorf("flags %+v lack %+v", choose.flags, want)
		}
	}
	if choose.argument.kind != "FILE" {
		t.Errorf("argument %+v", choose.argument)
	}
}

// TestCompletionIsHidden: the flag is for make, works in no other place, and knows three shells.
func TestCompletionIsHidden(t *testing.T) {
	for _, c := range []struct {
		args         []string
		status       int
		first, error string
	}{
		{[]string{"--completion", "zsh"}, 0, "#compdef tool\n", ""},
		{[]string{"--completion", "bash"}, 0, "# Completion of tool for bash", ""},
		{[]string{"--completion", "fish"}, 0, "# Completion of tool for fish", ""},
		{[]string{"--completion", "csh"}, 64, "", "not bash, zsh or fish"},
		{[]string{"--completion"}, 64, "", "unknown flag"},
		{[]string{"greet", "--completion", "zsh"}, 64, "", "unknown flag"},
	} {
		var out bytes.Buffer
		got, stderr := runTool(t, &out, nil, c.args...)
		if got != c.status || !strings.HasPrefix(out.String(), c.first) || !strings.Contains(stderr, c.error) {
			t.Errorf("%q: %d, %q, %q; want %d, %q, %q", c.args, got, out.String(), stderr, c.status, c.first, c.error)
		}
	}
}
