import java.util.EnumSet;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.*;
import org.apache.hadoop.fs.*;
import org.apache.hadoop.hdfs.HdfsConfiguration;
import org.apache.hadoop.hdfs.client.*;
import org.apache.hadoop.security.UserGroupInformation;

/** Makes a key, and the folders in which each file is encrypted with one of its own. */
public class Zones {
    public static void main(String[] given) throws Exception {
        Configuration conf = new HdfsConfiguration();
        UserGroupInformation.setConfiguration(conf);
        UserGroupInformation.loginUserFromKeytab(given[0], given[1]);
        KeyProvider keys = KeyProviderFactory.getProviders(conf).get(0);
        keys.createKey(given[2], KeyProvider.options(conf));
        FileSystem files = FileSystem.get(conf);
        HdfsAdmin admin = new HdfsAdmin(files.getUri(), conf);
        for (int zone = 3; zone < given.length; zone++) {
            Path path = new Path(given[zone]);
            files.mkdirs(path);
            admin.createEncryptionZone(
                path, given[2], EnumSet.noneOf(CreateEncryptionZoneFlag.class));
        }
    }
}
