package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"observability-hub/e2e/dependent"
	"observability-hub/e2e/link"
	"observability-hub/e2e/workspace"
)

// server is a place for restic's repositories, behind a link.
type server struct {
	name  string
	plain bool // neither the transport nor the server detects a changed byte
	link  *link.Link
	env   []string // access to the server
	dir   string   // files of the server

	repository   func(name string) string // RESTIC_REPOSITORY
	repositories int                      // number of repositories of web1
	cmd          *exec.Cmd
	finished     <-chan struct{}
}

func (s *server) close() {
	if s.link != nil {
		s.link.Close()
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.finished
}

// at returns the environment with which restic uses the repository.
func (s *server) at(name string) []string {
	return append([]string{"RESTIC_REPOSITORY=" + s.repository(name), "RESTIC_PASSWORD=correct horse", "VOLBACKUP_ENGINE=restic"}, s.env...)
}

const versitygwVersion = "v1.8.0"

// versitygw returns the path of an S3 server. It is compiled once, in about a minute, and not from a module of this project,
// because it has more than a hundred dependencies.
func versitygw() (string, error) {
	cache, err := workspace.Cache()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "versitygw-"+versitygwVersion)
	path := filepath.Join(dir, "versitygw")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.Command("go", "install", "github.com/versity/versitygw/cmd/versitygw@"+versitygwVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install versitygw: %w\n%s", err, out)
	}
	return path, nil
}

// startServers starts every kind of server.
func startServers(work string, seed uint64) (all []*server, err error) {
	defer func() {
		if err != nil {
			for _, s := range all {
				s.close()
			}
		}
	}()
	gateway, err := versitygw()
	if err != nil {
		return nil, err
	}
	if err := certificate(work); err != nil {
		return nil, err
	}
	if err := sshKeys(filepath.Join(work, "sftp")); err != nil {
		return nil, err
	}
	cert, key := filepath.Join(work, "cert.pem"), filepath.Join(work, "key.pem")
	for i, kind := range []struct {
		server
		argv func(s *server, address, port string) []string
	}{
		{server{name: "s3", env: []string{"AWS_ACCESS_KEY_ID=hub", "AWS_SECRET_ACCESS_KEY=hub-secret"}}, func(s *server, address, port string) []string {
			s.repository = func(name string) string { return "s3:http://" + s.link.Addr + "/backups/" + name }
			return []string{gateway, "--quiet", "--port", address, "--access", "hub", "--secret", "hub-secret", "posix", s.dir}
		}},
		{server{name: "rest", plain: true}, func(s *server, address, port string) []string {
			s.repository = func(name string) string { return "rest:http://" + s.link.Addr + "/" + name + "/" }
			return []string{"rclone", "serve", "restic", "--config", "", "--addr", address, s.dir}
		}},
		{server{name: "rest-tls", env: []string{"SSL_CERT_FILE=" + cert}}, func(s *server, address, port string) []string {
			s.repository = func(name string) string { return "rest:https://" + s.link.Addr + "/" + name + "/" }
			return []string{"rclone", "serve", "restic", "--config", "", "--addr", address, "--cert", cert, "--key", key, s.dir}
		}},
		{server{name: "sftp"}, func(s *server, address, port string) []string {
			s.repository = func(name string) string {
				return "sftp://root@" + s.link.Addr + "/" + filepath.Join(s.dir, name)
			}
			// sshd needs an empty /run/sshd.
			return []string{"unshare", "--mount", "--", "sh", "-c", `mount -t tmpfs none /run && mkdir /run/sshd && exec /usr/sbin/sshd -D -e -f "$0" -o Port="$1"`, filepath.Join(work, "sftp", "server"), port}
		}},
	} {
		s := &kind.server
		s.dir = filepath.Join(work, "servers", s.name)
		if err := os.MkdirAll(filepath.Join(s.dir, "backups"), 0o755); err != nil {
			return all, err
		}
		port, err := freePort()
		if err != nil {
			return all, err
		}
		address := net.JoinHostPort("127.0.0.1", port)
		argv := kind.argv(s, address, port)
		s.cmd = exec.Command(argv[0], argv[1:]...)
		s.cmd.Env = append(os.Environ(), "HOME="+s.dir)
		log, err := os.Create(s.dir + ".log")
		if err != nil {
			return all, err
		}
		s.cmd.Stdout, s.cmd.Stderr = log, log
		s.finished, err = dependent.Start(s.cmd)
		_ = log.Close() // the server has its own copy
		if err != nil {
			return all, err
		}
		all = append(all, s)
		if err := s.answers(address); err != nil {
			return all, err
		}
		if s.link, err = link.New(address, seed+uint64(i)); err != nil {
			return all, err
		}
	}
	return all, nil
}

// answers waits until the server accepts connections.
func (s *server) answers(address string) error {
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-s.finished:
			log, _ := os.ReadFile(s.dir + ".log")
			return fmt.Errorf("%s ended: %s", s.name, log)
		case <-deadline:
			return errors.New(s.name + " does not answer")
		}
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// certificate writes a certificate for 127.0.0.1, which is its own authority.
func certificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "backups"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

// sshKeys writes the keys and the configuration of an SSH server and of its clients. The server offers only SFTP.
func sshKeys(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"host-key", "key"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			return fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	server := fmt.Sprintf(`ListenAddress 127.0.0.1
HostKey %[1]s/host-key
AuthorizedKeysFile %[1]s/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
ForceCommand internal-sftp
`, dir)
	client := fmt.Sprintf("IdentityFile %s/key\nIdentitiesOnly yes\nBatchMode yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n", dir)
	return errors.Join(os.WriteFile(filepath.Join(dir, "server"), []byte(server), 0o600), os.WriteFile(filepath.Join(dir, "client"), []byte(client), 0o600))
}
