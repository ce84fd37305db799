package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"filippo.io/age"

	"observability-hub/lib/credential"
	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
)

// recipients returns the recipients that archives are encrypted to, and their
// names.
func (f storeFlags) recipients() (all []age.Recipient, names []string, err error) {
	// An error quotes a line only if it begins like a recipient. Any other line could be a secret key.
	shown := func(where, text string) string {
		if strings.HasPrefix(text, "age1") {
			return fmt.Sprintf("%s %.80q", where, text)
		}
		return where
	}
	var lines, places []string
	for _, text := range f.Recipient {
		lines, places = append(lines, text), append(places, shown("--recipient", text))
	}
	if f.RecipientsFile != "" {
		b, err := os.ReadFile(f.RecipientsFile)
		if err != nil {
			return nil, nil, badRecipient(err)
		}
		number, found := 0, len(lines)
		for line := range strings.Lines(string(b)) {
			number++
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				lines, places = append(lines, line), append(places, shown(fmt.Sprintf("%s, line %d", f.RecipientsFile, number), line))
			}
		}
		if len(lines) == found { // an empty file must not disable encryption
			return nil, nil, badRecipient(fmt.Errorf("%s contains no recipient", f.RecipientsFile))
		}
	}
	for i, line := range lines {
		r, err := age.ParseRecipients(strings.NewReader(line))
		if err != nil { // do not print err, which quotes the line
			return nil, nil, badRecipient(fmt.Errorf("%s is not valid", places[i]))
		}
		all, names = append(all, r...), append(names, line)
	}
	return all, names, nil
}

func badRecipient(err error) error {
	return sysexits.New(sysexits.Config, "bad_recipient", fmt.Errorf("recipient: %w", err)).
		WithHint("age-keygen -y KEYFILE prints the recipient of a key: age1…")
}

// identities returns the keys that decrypt archives: those of --identity, else
// those of the credential age_identity. The error contains no key.
func (f identityFlags) identities() ([]age.Identity, error) {
	text, from := "", "the credential age_identity"
	if f.Identity != "" {
		b, err := os.ReadFile(f.Identity)
		if err != nil {
			return nil, badIdentity(err)
		}
		text, from = string(b), f.Identity
	} else {
		value, ok, err := credential.Lookup("age_identity")
		if err != nil {
			return nil, badIdentity(err)
		}
		if !ok {
			return nil, badIdentity(errors.New("the archive is encrypted, and no identity is set"))
		}
		text = value
	}
	all, err := age.ParseIdentities(strings.NewReader(text))
	if err != nil {
		return nil, badIdentity(fmt.Errorf("%s: not a file of age identities", from))
	}
	return all, nil
}

// identitiesFor returns the identities if the archive is encrypted, else none.
func (f identityFlags) identitiesFor(m *repository.Manifest) ([]age.Identity, error) {
	if len(m.Recipients) == 0 {
		return nil, nil
	}
	return f.identities()
}

func badIdentity(err error) error {
	if e, ok := errors.AsType[*sysexits.Error](err); ok {
		return e // it has a hint of its own
	}
	return sysexits.New(sysexits.Config, "bad_identity", fmt.Errorf("identity: %w", err)).
		WithHint("pass --identity FILE, a file made by age-keygen, or set the credential age_identity")
}
