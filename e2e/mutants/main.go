// Mutants changes one thing at a time in a tool's core files and runs its unit
// tests: a mutant that no test notices is a statement that no unit test checks.
//
// Synopsis:
//
//	mutants -tool TOOL [-n 60] [-seed S] [-jobs 1] [-at FILE[:LINE]]
//
// It draws mutants at random until n of them compiled, and prints a line for
// each: file and line, kind, change, and "killed", "survived" or "did not
// compile". The same seed on the same files draws the same mutants. The files
// are those of the table in core.go; -at runs the mutants of one file or line.
//
// The tree is not touched: the compiler reads the mutant by go build -overlay.
// A mutant can do anything that its user can. Started by root, each one is root
// of a user namespace whose users own only its temporary directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	tool := flag.String("tool", "", "the tool, or lib")
	n := flag.Int("n", 60, "how many mutants must compile")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the sample")
	jobs := flag.Int("jobs", 1, "mutants to test at once")
	at := flag.String("at", "", "only `FILE[:LINE]`, all its mutants")
	flag.Parse()
	// So that an interrupted run leaves no mutant and no directory.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *tool, *n, *seed, *jobs, *at); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, tool string, n int, seed uint64, jobs int, at string) error {
	if core[tool] == nil {
		return fmt.Errorf("-tool must be one of %s", strings.Join(tools(), ", "))
	}
	root, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "go.work")); err != nil {
		return fmt.Errorf("start it in the project's root: %w", err)
	}
	all, err := candidates(root, tool, at)
	if err != nil {
		return err
	}
	if at != "" {
		n = len(all)
	}
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })

	scratch, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := os.Chmod(scratch, 0o755); err != nil { // for the users of the namespaces
		return err
	}
	t := &tester{root: root, tool: tool, scratch: scratch}
	if err := t.baseline(ctx, all); err != nil {
		return err
	}
	fmt.Printf("%d mutants of %s, %d wanted, -seed %d\n", len(all), tool, n, seed)
	count, err := t.sample(ctx, all, n, jobs)
	fmt.Printf("%s: %d mutants, %d killed, %d survived; %d more did not compile; -seed %d\n",
		tool, count[killed]+count[survived], count[killed], count[survived], count[uncompiled], seed)
	return err
}

// sample tests mutants in turn until n have compiled.
func (t *tester) sample(ctx context.Context, all []mutant, n, jobs int) (map[string]int, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	count := map[string]int{}
	var failed error
	next, busy := 0, 0
	ended := sync.NewCond(&mu)
	for range jobs {
		wg.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			for {
				// A mutant at work may not compile, so another one may be needed.
				for failed == nil && count[killed]+count[survived]+busy >= n && busy > 0 {
					ended.Wait()
				}
				if failed != nil || next == len(all) || count[killed]+count[survived] >= n {
					return
				}
				m := all[next]
				next++
				busy++
				mu.Unlock()
				result, by, err := t.test(ctx, m)
				mu.Lock()
				busy--
				ended.Broadcast()
				if err != nil {
					failed = errors.Join(failed, err)
					return
				}
				count[result]++
				fmt.Printf("%s:%d\t%s\t%s\t%s\n", m.file, m.line, m.kind, m.change(), strings.TrimSpace(result+" "+by))
			}
		})
	}
	wg.Wait()
	return count, failed
}

// candidates returns every mutant of the tool's core files.
func candidates(root, tool, at string) ([]mutant, error) {
	file, line, _ := strings.Cut(at, ":")
	var all []mutant
	for _, pattern := range core[tool] {
		paths, err := filepath.Glob(filepath.Join(root, tool, pattern))
		if err != nil {
			return nil, err
		}
		if len(paths) == 0 {
			return nil, fmt.Errorf("no file is %s/%s", tool, pattern)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return nil, err
			}
			if file != "" && file != name {
				continue
			}
			src, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			found, err := mutate(name, src)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
	}
	if line != "" {
		all = slices.DeleteFunc(all, func(m mutant) bool { return fmt.Sprint(m.line) != line })
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("there is no mutant at %q", at)
	}
	return all, nil
}
