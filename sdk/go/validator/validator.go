// Package validator makes a component of the role `validator` of the program that imports it.
package validator

import millrace "github.com/millrace/millrace/sdk/go"

// Export makes what configure answers the plugin of this program. Call it once, in an init function.
func Export(info millrace.Info, configure func(millrace.Config) (millrace.Validator, error)) {
	millrace.ExportValidator(info, configure)
}
