package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A container engine mounts single files of the host over /etc/hosts and its
// like. They are no disks; a folder of the same file system is.
func TestDistinctPassesOverFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "hosts")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	hosts := mount{device: "8:1", root: "/f", point: file, fstype: "ext4"}
	data := mount{device: "8:1", root: "/var/data", point: dir, fstype: "ext4"}
	for _, tc := range []struct {
		name   string
		mounts []mount
		want   []string
	}{
		{"a file alone", []mount{hosts}, nil},
		{"a folder behind it", []mount{hosts, data}, []string{dir}},
		{"a whole file system is not asked", []mount{{device: "8:2", root: "/", point: file, fstype: "ext4"}}, []string{file}},
		{"nor is one that may hang", []mount{{device: "0:50", root: "/x", point: file, fstype: "nfs4"}}, []string{file}},
		{"one that cannot be seen from here stays", []mount{{device: "8:3", root: "/x", point: filepath.Join(dir, "absent"), fstype: "ext4"}},
			[]string{filepath.Join(dir, "absent")}},
	} {
		got := distinct(tc.mounts)
		if len(got) != len(tc.want) {
			t.Errorf("%s: distinct = %v; want %v", tc.name, got, tc.want)
			continue
		}
		for i, m := range got {
			if m.point != tc.want[i] {
				t.Errorf("%s: distinct = %v; want %v", tc.name, got, tc.want)
			}
		}
	}
}
