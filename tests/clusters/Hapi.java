import static java.nio.charset.StandardCharsets.UTF_8;

import ca.uhn.fhir.batch2.jobs.config.Batch2JobsConfig;
import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.DefaultProfileValidationSupport;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.jpa.api.IDaoRegistry;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings;
import ca.uhn.fhir.jpa.api.config.ThreadPoolFactoryConfig;
import ca.uhn.fhir.jpa.api.dao.IFhirSystemDao;
import ca.uhn.fhir.jpa.batch2.JpaBatch2Config;
import ca.uhn.fhir.jpa.config.HapiJpaConfig;
import ca.uhn.fhir.jpa.config.r4.JpaR4Config;
import ca.uhn.fhir.jpa.config.util.HapiEntityManagerFactoryUtil;
import ca.uhn.fhir.jpa.dao.FulltextSearchSvcImpl;
import ca.uhn.fhir.jpa.dao.IFulltextSearchSvc;
import ca.uhn.fhir.jpa.dao.search.HSearchSortHelperImpl;
import ca.uhn.fhir.jpa.dao.search.IHSearchSortHelper;
import ca.uhn.fhir.jpa.model.config.PartitionSettings;
import ca.uhn.fhir.jpa.model.config.SubscriptionSettings;
import ca.uhn.fhir.jpa.model.dialect.HapiFhirH2Dialect;
import ca.uhn.fhir.jpa.provider.DaoRegistryResourceSupportedSvc;
import ca.uhn.fhir.jpa.provider.IJpaSystemProvider;
import ca.uhn.fhir.jpa.provider.JpaCapabilityStatementProvider;
import ca.uhn.fhir.jpa.search.DatabaseBackedPagingProvider;
import ca.uhn.fhir.jpa.subscription.channel.config.SubscriptionChannelConfig;
import ca.uhn.fhir.rest.api.IResourceSupportedSvc;
import ca.uhn.hapi.fhir.cdshooks.api.json.CdsServiceResponseJson;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory;
import ca.uhn.fhir.rest.server.util.ISearchParamRegistry;
import ca.uhn.fhir.validation.FhirValidator;
import com.fasterxml.jackson.databind.ObjectMapper;
import jakarta.persistence.EntityManagerFactory;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.util.Properties;
import javax.sql.DataSource;
import org.apache.commons.dbcp2.BasicDataSource;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Connector;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.hl7.fhir.common.hapi.validation.support.CommonCodeSystemsTerminologyService;
import org.hl7.fhir.common.hapi.validation.support.InMemoryTerminologyServerValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.UnknownCodeSystemWarningValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.ValidationSupportChain;
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator;
import org.hl7.fhir.r5.utils.validation.constants.BestPracticeWarningLevel;
import org.springframework.beans.factory.config.BeanFactoryPostProcessor;
import org.springframework.beans.factory.config.ConfigurableListableBeanFactory;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;
import org.springframework.context.annotation.Primary;
import org.springframework.orm.jpa.JpaTransactionManager;
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean;

/**
 * A FHIR R4 server and judges, in one JVM: {@code java Hapi PORT PORT}.
 *
 * <p>At the first port {@code /fhir} keeps resources. At the second {@code POST /validate} answers an
 * OperationOutcome on the resource it is given, {@code POST /cards} what it understands of a CDS
 * Hooks response; {@code POST /door} shuts the server, or opens it again.
 */
public class Hapi {
  /** The server's parts, each made when it is first asked for; everything is kept in memory. */
  @Configuration
  @Import({
    JpaR4Config.class,
    HapiJpaConfig.class,
    JpaBatch2Config.class,
    Batch2JobsConfig.class,
    SubscriptionChannelConfig.class,
    ThreadPoolFactoryConfig.class,
  })
  public static class Parts {
    @Bean
    public static BeanFactoryPostProcessor lazily() {
      return beans -> {
        for (String name : beans.getBeanDefinitionNames()) {
          beans.getBeanDefinition(name).setLazyInit(true);
        }
      };
    }

    @Bean
    public JpaStorageSettings storageSettings() {
      JpaStorageSettings settings = new JpaStorageSettings();
      settings.setReuseCachedSearchResultsForMillis(null); // what is asked for is what is there now
      return settings;
    }

    @Bean
    public PartitionSettings partitionSettings() {
      return new PartitionSettings();
    }

    @Bean
    public SubscriptionSettings subscriptionSettings() {
      return new SubscriptionSettings();
    }

    @Bean(destroyMethod = "close")
    public DataSource dataSource() {
      BasicDataSource source = new BasicDataSource();
      source.setDriver(new org.h2.Driver());
      source.setUrl("jdbc:h2:mem:hapi;DB_CLOSE_DELAY=-1");
      source.setMaxTotal(12);
      return source;
    }

    @Bean
    @Primary
    public LocalContainerEntityManagerFactoryBean entityManagerFactory(
        DataSource source,
        ConfigurableListableBeanFactory beans,
        FhirContext context,
        JpaStorageSettings settings) {
      LocalContainerEntityManagerFactoryBean made =
          HapiEntityManagerFactoryUtil.newEntityManagerFactory(beans, context, settings);
      Properties told = new Properties();
      told.put("hibernate.dialect", HapiFhirH2Dialect.class.getName());
      told.put("hibernate.hbm2ddl.auto", "create");
      told.put("hibernate.search.enabled", "false");
      made.setPersistenceUnitName("hapi");
      made.setDataSource(source);
      made.setJpaProperties(told);
      return made;
    }

    @Bean
    @Primary
    public JpaTransactionManager transactionManager(EntityManagerFactory factory) {
      return new JpaTransactionManager(factory);
    }

    @Bean
    @Primary
    public IFulltextSearchSvc fullTextSearch() {
      return new FulltextSearchSvcImpl();
    }

    @Bean
    @Primary
    public IHSearchSortHelper sortHelper(ISearchParamRegistry registry) {
      return new HSearchSortHelperImpl(registry);
    }

    @Bean
    @Primary
    public IResourceSupportedSvc supported(IDaoRegistry registry) {
      return new DaoRegistryResourceSupportedSvc(registry);
    }
  }

  /** What answers a body with a text. */
  private interface Judge {
    String judge(String body) throws Exception;
  }

  private static ServletHolder judging(Judge judge) {
    return new ServletHolder(
        new HttpServlet() {
          @Override
          protected void doPost(HttpServletRequest request, HttpServletResponse response)
              throws IOException, ServletException {
            byte[] body = request.getInputStream().readAllBytes();
            try {
              response.getOutputStream().write(judge.judge(new String(body, UTF_8)).getBytes(UTF_8));
            } catch (Exception error) {
              throw new ServletException(error);
            }
          }
        });
  }

  private static Judge validator(FhirContext context) {
    UnknownCodeSystemWarningValidationSupport foreign = // of which nobody here can tell
        new UnknownCodeSystemWarningValidationSupport(context);
    foreign.setNonExistentCodeSystemSeverity(IValidationSupport.IssueSeverity.INFORMATION);
    IValidationSupport known =
        new ValidationSupportChain(
            new DefaultProfileValidationSupport(context),
            new CommonCodeSystemsTerminologyService(context),
            new InMemoryTerminologyServerValidationSupport(context),
            foreign);
    FhirInstanceValidator module = new FhirInstanceValidator(known);
    module.setBestPracticeWarningLevel(BestPracticeWarningLevel.Ignore);
    FhirValidator validator = context.newValidator().registerValidatorModule(module);
    return body ->
        context
            .newJsonParser()
            .encodeResourceToString(validator.validateWithResult(body).toOperationOutcome());
  }

  private static RestfulServer served(FhirContext context, AnnotationConfigApplicationContext parts) {
    RestfulServer served = new RestfulServer(context);
    served.registerProviders(parts.getBean(ResourceProviderFactory.class).createProviders());
    served.registerProvider(parts.getBean(IJpaSystemProvider.class));
    DatabaseBackedPagingProvider pages = parts.getBean(DatabaseBackedPagingProvider.class);
    pages.setMaximumPageSize(500);
    served.setPagingProvider(pages);
    served.setServerConformanceProvider(
        new JpaCapabilityStatementProvider(
            served,
            parts.getBean(IFhirSystemDao.class),
            parts.getBean(JpaStorageSettings.class),
            parts.getBean(ISearchParamRegistry.class),
            parts.getBean(IValidationSupport.class)));
    return served;
  }

  private static Server server(String port, ServletContextHandler all) {
    Server server = new Server();
    ServerConnector door = new ServerConnector(server);
    door.setHost("127.0.0.1");
    door.setPort(Integer.parseInt(port));
    server.addConnector(door);
    server.setHandler(all);
    return server;
  }

  private static String turned(Connector door, String told) throws Exception {
    if (told.equals("open")) {
      door.start();
    } else {
      door.stop();
    }
    return told;
  }

  public static void main(String[] ports) throws Exception {
    AnnotationConfigApplicationContext parts = new AnnotationConfigApplicationContext(Parts.class);
    FhirContext context = parts.getBean(FhirContext.class);
    ServletContextHandler kept = new ServletContextHandler();
    ServletHolder fhir = new ServletHolder(served(context, parts));
    fhir.setInitOrder(1); // before the first request
    kept.addServlet(fhir, "/fhir/*");
    Server records = server(ports[0], kept);
    ObjectMapper forms = new ObjectMapper(); // which fails at what it does not know
    ServletContextHandler judges = new ServletContextHandler();
    judges.addServlet(judging(validator(context)), "/validate");
    judges.addServlet(
        judging(told -> forms.writeValueAsString(forms.readValue(told, CdsServiceResponseJson.class))),
        "/cards");
    judges.addServlet(judging(told -> turned(records.getConnectors()[0], told)), "/door");
    records.start();
    server(ports[1], judges).start();
  }
}
