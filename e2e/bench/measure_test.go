package main

import (
	"os"
	"testing"
	"time"
)

func TestTotalCalls(t *testing.T) {
	for _, c := range []struct {
		summary string
		want    int64
		ok      bool
	}{
		{"% time     seconds  usecs/call     calls    errors syscall\n------ -----\n  1.00    0.000001           1         3           read\n------ -----\n100.00    0.033561          71       468        10 total\n", 468, true},
		{"100.00    0.000000           0        29           total", 29, true},
		{"strace: Process 12 attached", 0, false},
		{"", 0, false},
	} {
		got, err := totalCalls(c.summary)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("totalCalls(%q) = %d, %v; want %d, ok %v", c.summary, got, err, c.want, c.ok)
		}
	}
}

func TestPerfValue(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
		ok   bool
	}{
		{"# started on Sun Nov 22\n\n415,,raw_syscalls:sys_enter,6460068,100.00,,\n", 415, true},
		{"<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n", 0, false},
		{"12,,instructions:u,0,100.00,,\n", 0, false},
	} {
		if got, ok := perfValue(c.text, syscallEvent); got != c.want || ok != c.ok {
			t.Errorf("perfValue(%q) = %d, %v; want %d, %v", c.text, got, ok, c.want, c.ok)
		}
	}
}

func TestMedian(t *testing.T) {
	if got := median([]time.Duration{9, 1, 5}); got != 5 {
		t.Errorf("median = %v; want 5", got)
	}
	if got := median([]int64(nil)); got != 0 {
		t.Errorf("median of nothing = %v; want 0", got)
	}
}

func TestProcessCPU(t *testing.T) {
	before, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for began, sum := time.Now(), 0; time.Since(began) < 20*time.Millisecond; {
		sum++ // uses CPU time
	}
	after, err := processCPU(os.Getpid())
	if err != nil || after-before < time.Millisecond || after-before > 10*time.Second {
		t.Errorf("processCPU went from %v to %v, %v, over 20 ms of work", before, after, err)
	}
}
